"""Plant faults into the packages, one at a time, and find what catches each.

The faults are in ``planted_faults.toml``, slips that no operator of a mutation tool makes, each
with the cases whose laws catch it.
"""

import fnmatch
import functools
import multiprocessing
import multiprocessing.context
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ROOT

# what the suite imports that is not ours; what is missing here is imported in every fork
_PRELOADED = ["array_api_compat.numpy", "array_api_strict", "llvmlite.binding", "scipy.linalg"]
_PRELOADED += ["rich.table", "tests.suite.test_planted_faults"]


@dataclass(frozen=True)
class Fault:
    """A wrong line: `old`, which is there once, becomes `new`; then laws on `cases` are to break.

    `file` is of the core, or of an adapter: "invconv_torch/module.py". Cases are patterns, with
    spaces between; of `quick`, only what ``--quick`` runs. Where it is `plain`, llvmlite is absent.
    """

    name: str
    file: str
    old: str
    new: str
    cases: str = "corner-bias corner-2d+-"
    dtypes: Sequence[str] = ("float64", "float32")
    library: str = "numpy"
    quick: bool = True
    plain: bool = False

    @property
    def path(self) -> Path:
        return ROOT / ("backends" if self.file.startswith("invconv_") else "invconv") / self.file

    def planted(self) -> str:
        text = self.path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} has `old` not once"
        return text.replace(self.old, self.new)

    def caught_by(self) -> str:
        """Return what broke while another law held: if it dies or does not end, none has held."""
        with _server().Pool(1) as pool:
            return pool.apply_async(_hold, [self]).get(300)


def load() -> Iterator[Fault]:
    text = Path(__file__).with_name("planted_faults.toml").read_text(encoding="utf-8")
    for file, entries in tomllib.loads(text).items():
        adapter = re.match("invconv_([a-z]+)", file)
        for name, entry in entries.items():
            yield Fault(name, file, **{"library": adapter[1] if adapter else "numpy"} | entry)


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes as forks of one that has imported all but the core."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _hold(fault: Fault) -> str:
    """Import the packages with a fault, and return the first law that breaks, if another holds."""
    right = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> Any:
        if loader.path != str(fault.path):
            return right(loader, name)
        return loader.source_to_code(fault.planted(), loader.path)

    assert "invconv" not in sys.modules
    setattr(SourceFileLoader, "get_code", get_code)  # noqa: B010 - a method
    if fault.plain:
        sys.modules["llvmlite"] = None  # type: ignore[assignment]
    from invconv_conformance.laws import LAWS
    from invconv_conformance.libraries import KNOWN
    from invconv_conformance.run import NAMED, checks

    columns = [c for c in KNOWN[fault.library].columns() if c.dtype in fault.dtypes]
    cases = [name for p in fault.cases.split() for name in fnmatch.filter(NAMED, p)]
    broken, held = "", False
    for check in checks(columns, dict.fromkeys(cases), list(LAWS), fault.quick):
        result = check.run()
        held |= result.status == "pass"
        if result.bad and not broken:
            broken = f"{result.law}, {result.case}, {result.what}"
        if broken and held:
            return broken
    return ""


FAULTS = tuple(load())
PAIR = "the pair transposed without being exchanged"
DEFAULT = (PAIR, "a stale halo before the first part of a strip")
MARKS: Any = {True: [], False: pytest.mark.slow}  # by default or not
CHOSEN = [pytest.param(f, id=f.name, marks=MARKS[f.name in DEFAULT]) for f in FAULTS]


@pytest.mark.parametrize("fault", CHOSEN)
def test_it_is_caught(fault: Fault) -> None:
    catch = fault.caught_by()
    print(catch)  # -rA shows it
    assert catch


def test_the_faults_are_distinct_and_still_fit() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 31
    assert {*DEFAULT} <= {fault.name for fault in FAULTS}
    assert all(fault.planted() for fault in FAULTS)
