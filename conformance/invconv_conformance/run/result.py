"""What came out of a law on a case, and how to see it again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import KNOWN


@dataclass(frozen=True)
class Result:
    """The verdict of a law on a case, on a library, device, mode and dtype."""

    law: str
    case: str
    library: str
    device: str
    mode: str
    dtype: str
    status: str  # "pass", "fail", "error", "not applicable", or "expected": a known failure
    what: str  # the output that used up most of its bound, or the error's last line
    error: float
    bound: float
    seconds: float
    reason: str = ""  # of an expected failure

    @property
    def column(self) -> Column:
        """Its column of the table."""
        return Column(self.library, self.device, self.mode, self.dtype)

    @property
    def bad(self) -> bool:
        """Whether it is a failure that nobody expects."""
        return self.status in ("fail", "error")

    @property
    def reproduce(self) -> str:
        """The command that runs this law and case alone."""
        option = "--library" if self.library in KNOWN else "--namespace"
        test = f"{self.library}-{self.case} and {self.law}[{'-'.join(self.column[1:])}]"
        return (
            f"python -m invconv conformance {option} {self.library} "
            f"--mode {self.mode} --dtype {self.dtype} -k {shlex.quote(test)}"
        )
