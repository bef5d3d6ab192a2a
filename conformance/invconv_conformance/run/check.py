"""Hold one case to one law, in one column."""

import functools
import itertools
import shlex
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws import LAWS
from invconv_conformance.laws.law import Floats, Law, Measure
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import KNOWN, target_of

# JAX keeps every program that it compiled, up to 200 MB a case, and some serve the next case too.
_REMEMBERED = 12  # settings after which a process forgets its programs
_settings = itertools.count(1)  # of this process
NAMED = {case.name: case for case in (*CASES, *CALLS)}


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
        which = f"{'--library' if self.library in KNOWN else '--namespace'} {self.library}"
        test = f"{self.library}-{self.case}::{self.law}[{'-'.join(self.column[1:])}]"
        options = f"{which} --mode {self.mode} --dtype {self.dtype} -k {shlex.quote(test)}"
        return f"python -m invconv conformance {options}"


class Check(NamedTuple):
    """A law on a case in a column, in words, so that it can go to another process."""

    case: str
    column: Column
    law: str

    @property
    def speaks(self) -> bool:
        """Whether the law is about such cases and modes at all."""
        case = NAMED[self.case]
        fits = not (case.wide and self.column.dtype == "float16")
        return fits and LAWS[self.law].speaks_of(case, self.column.mode)

    def run(self) -> Result:
        """Return the result of the law on the case."""
        return check(LAWS[self.law], setting(self.case, self.column))


@functools.lru_cache(maxsize=1)
def setting(case: str, column: Column) -> Setting:
    """Return a case in a column: the laws share its operator, its truth and its programs."""
    target = target_of(column)
    if next(_settings) % _REMEMBERED == 0:
        target.library.forget()
    return Setting(NAMED[case], target, column.dtype)


def check(law: Law, setting: Setting) -> Result:
    """Hold a case to a law: the worst of its measures decides."""
    target, start = setting.target, time.perf_counter()
    status, worst = "not applicable", Measure("", 0.0, 1.0)
    try:
        with _strict():
            if measures := list(law.check(setting)):
                worst = max(measures, key=lambda measure: measure.share)
                status = "pass" if worst.share <= 1 else "fail"
    except Exception as error:  # a law that cannot run is a result, not an end
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        status, worst = "error", Measure(f"{type(error).__name__}: {first}", np.inf, 1.0)
    column = target.library.name, target.device, target.mode, setting.dtype
    seconds = time.perf_counter() - start
    numbers = float(worst.error), float(worst.bound), seconds
    return Result(law.id, setting.case.name, *column, status, worst.what, *numbers)


@contextmanager
def _strict() -> Iterator[None]:
    """Turn NumPy's warnings of overflow or NaN into errors; a lost inverse has a law of its own.

    But for one that depends on what was in memory before: on AVX-512, OpenBLAS's sgemv (0.3.31)
    reads what nothing was written to, for a matrix of five columns, and returns what is right.
    """
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        warnings.filterwarnings("ignore", "invalid value encountered in matmul", RuntimeWarning)
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        yield


def outputs(setting: Setting) -> dict[str, Floats]:
    """Return the results by which libraries are compared, none where they cannot be had."""
    if setting.case.singular:
        return {}
    try:
        x, y = (setting.array(image) for image in setting.images[:2])
        with _strict():
            found = {"forward": setting.conv.forward(x), "inverse": setting.conv.inverse(y)}
            found["log_det"] = setting.more("log_det", x)
            return {name: to_numpy(array).astype(float) for name, array in found.items()}
    except Exception:  # the laws have said so already
        return {}
