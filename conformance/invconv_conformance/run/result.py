"""What came out of a law on a case, and how to see it again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from invconv_conformance.laws.setting import Measure
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import LIBRARIES


@dataclass(frozen=True)
class Result:
    """The verdict of a law on a case, on a library, device, mode and dtype.

    Attributes
    ----------
    status : {"pass", "fail", "error", "expected", "not applicable"}
        "expected" is a failure that the list of expected ones explains.
    what : str
        The output that used up most of its bound, or the error's last line.
    error, bound : float
        Of that output.
    seconds : float
    reason : str
        Of an expected failure.
    """

    law: str
    case: str
    library: str
    device: str
    mode: str
    dtype: str
    status: str
    what: str
    error: float
    bound: float
    seconds: float
    reason: str = ""

    @property
    def column(self) -> Column:
        """Its column of the table."""
        return Column(self.library, self.device, self.mode, self.dtype)

    @property
    def bad(self) -> bool:
        """Whether it is a failure that nobody expects."""
        return self.status in ("fail", "error")

    @property
    def share(self) -> float:
        """The share of the bound that is used up; over 1 is a failure."""
        return Measure(self.what, self.error, self.bound).share

    @property
    def reproduce(self) -> str:
        """The command that runs this law and case alone."""
        known = self.library in (library.name for library in LIBRARIES)
        test = f"{self.library}-{self.case} and {self.law}[{'-'.join(self.column[1:])}]"
        return (
            f"python -m invconv conformance {'--library' if known else '--namespace'} "
            f"{self.library} --mode {self.mode} --dtype {self.dtype} -k {shlex.quote(test)}"
        )
