"""Run the laws over the cases, and keep what came out."""

from __future__ import annotations

import fnmatch
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from invconv_conformance.cases import CASES, Case
from invconv_conformance.laws import LAWS, Law
from invconv_conformance.libraries import Target
from invconv_conformance.setting import Measure, Setting

# one case of each kind, enough to see within half a minute that a library is wired up
QUICK = (
    "corner-2d+-",
    "corner-bias",
    "raster-k2x3-dilated",
    "emerging-2d",
    "periodic-even-dilated",
    "conv1x1-2d",
    "pluconv1x1-2d",
    "qrconv1x1-m2",
    "actnorm-2d",
    "chain-inverses",
)


@dataclass(frozen=True)
class Result:
    """What a law said of a case on a library, device and dtype.

    Attributes
    ----------
    status : {"pass", "fail", "error"}
    what : str
        The output that used up most of its bound, or the error's last line.
    error, bound : float
        Of that output.
    seconds : float
    """

    law: str
    case: str
    library: str
    device: str
    dtype: str
    status: str
    what: str
    error: float
    bound: float
    seconds: float

    @property
    def share(self) -> float:
        """How much of the bound is used up; over 1 is a failure."""
        return self.error / self.bound if self.bound else math.inf

    @property
    def reproduce(self) -> str:
        """The command that runs this law and case alone."""
        return (
            f"python -m invconv conformance --library {self.library} --device {self.device} "
            f"--dtype {self.dtype} --cases '{self.case}' --laws '{self.law}'"
        )


def select(pattern: str, quick: bool) -> list[Case]:
    """Return the cases whose names match a pattern such as "periodic-*"."""
    found = [c for c in CASES if fnmatch.fnmatchcase(c.name, pattern)]
    return [c for c in found if c.name in QUICK] if quick else found


def select_laws(pattern: str) -> list[Law]:
    """Return the laws whose ids match a pattern."""
    return [law for law in LAWS.values() if fnmatch.fnmatchcase(law.id, pattern)]


def run(
    targets: Iterable[tuple[Target, str]],
    cases: list[Case],
    laws: list[Law],
    step: Callable[[str], Any] = lambda text: None,
) -> Iterator[Result]:
    """Yield the result of every law on every case, on each library, device and dtype."""
    for target, dtype in targets:
        for case in cases:
            step(f"{target} {dtype} {case.name}")
            setting = Setting(case, target, dtype)
            for law in laws:
                yield check(law, setting)


def check(law: Law, setting: Setting) -> Result:
    """Run one law on one case."""
    start = time.perf_counter()
    status, worst = "pass", Measure("", 0.0, 1.0)
    try:
        for measure in law.check(setting):
            if not measure.error * worst.bound <= worst.error * measure.bound:
                worst = measure
            if not measure.error <= measure.bound:
                status = "fail"
    except Exception as error:  # a law that cannot run is a result, not an end
        last = traceback.format_exception_only(error)[-1].strip()
        status, worst = "error", Measure(last, math.inf, 1.0)
    return Result(
        law.id,
        setting.case.name,
        setting.target.library.name,
        setting.target.device,
        setting.dtype,
        status,
        worst.what,
        worst.error,
        worst.bound,
        time.perf_counter() - start,
    )
