"""Plant faults into a copy of the packages, one at a time, and find what catches each.

The faults are in ``planted_faults.toml``, slips that no operator of a mutation tool makes, each
with the cases whose laws catch it.
"""

import fnmatch
import functools
import json
import multiprocessing
import multiprocessing.context
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ROOT

# what the suite imports that is not ours; what is missing here is imported in every fork
_PRELOADED = ["array_api_compat.numpy", "array_api_strict", "llvmlite.binding", "scipy.linalg"]
_PRELOADED += ["rich.table", "tests.suite.test_planted_faults"]


@dataclass(frozen=True)
class Laws:
    """Which laws are held, on which cases: patterns, with spaces between.

    Of `quick`, only what ``--quick`` runs. Where it is `plain`, the core finds llvmlite too old,
    and runs what does without the compiled kernel.
    """

    cases: str = "corner-bias corner-2d+-"
    dtypes: Sequence[str] = ("float64", "float32")
    library: str = "numpy"
    quick: bool = True
    plain: bool = False

    def hold(self, folder: Path) -> tuple[str, bool]:
        """Return what broke in a copy of the packages, "" if nothing did, and if another law held.

        It ends there. A process that dies, or does not end, has broken without a law that held.
        """
        report = folder / "report.json"
        process = _server().Process(target=_in_fork, args=(folder, report, self))
        process.start()
        process.join(300)
        process.kill()  # if it has not ended
        process.join()
        if process.exitcode:
            return f"ended with {process.exitcode}", False
        broken, held = json.loads(report.read_text(encoding="utf-8"))
        return broken, held


@dataclass(frozen=True)
class Fault:
    """A wrong line: `old`, which is there once, becomes `new`.

    `file` is of the core, or of an adapter: "invconv_torch/module.py". Some of `laws` are to break.
    """

    name: str
    file: str
    old: str
    new: str
    laws: Laws

    def planted(self, folder: Path) -> tuple[Path, str]:
        path = folder / ("" if self.file.startswith("invconv_") else "invconv") / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} has `old` not once"
        return path, text.replace(self.old, self.new)

    def caught_by(self) -> str:
        with copied() as folder:
            rewrite(*self.planted(folder))
            broken, held = self.laws.hold(folder)
            return broken if held else ""


def load() -> tuple[Fault, ...]:
    text = Path(__file__).with_name("planted_faults.toml").read_text(encoding="utf-8")
    faults = []
    for file, entries in tomllib.loads(text).items():
        for name, entry in entries.items():
            edit = name, file, entry.pop("old"), entry.pop("new")
            adapter = re.match("invconv_([a-z]+)", file)
            laws = {"library": adapter[1] if adapter else "numpy"} | entry
            faults.append(Fault(*edit, Laws(**laws)))
    return tuple(faults)


@contextmanager
def copied() -> Iterator[Path]:
    """Give a folder with a copy of the core and the adapters, their primitives registered."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    backends = project["entry-points"]["invconv.backends"]
    with tempfile.TemporaryDirectory(prefix="invconv-fault-") as name:
        folder = Path(name)
        for package in (ROOT / "invconv", *(ROOT / "backends").glob("invconv_*")):
            shutil.copytree(package, folder / package.name)
        info = folder / "invconv-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: invconv\nVersion: 0\n")
        entries = (f"{library} = {module}\n" for library, module in backends.items())
        (info / "entry_points.txt").write_text("[invconv.backends]\n" + "".join(entries))
        yield folder


def rewrite(path: Path, text: str) -> None:
    """Write a module, and forget what was compiled of it."""
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes as forks of one that has imported all but the core."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _in_fork(folder: Path, report: Path, wanted: Laws) -> None:
    """Hold the copy in a folder to laws, and write what held and what did not."""
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(ROOT / "conformance")]
    sys.dont_write_bytecode = True
    if wanted.plain:
        machine = folder / "invconv" / "kernels" / "cpu" / "machine.py"
        text = machine.read_text(encoding="utf-8")
        rewrite(machine, re.sub('^OLDEST = ".+"', 'OLDEST = "999"', text, flags=re.MULTILINE))
    from invconv_conformance.laws import LAWS
    from invconv_conformance.libraries.table import LIBRARIES
    from invconv_conformance.run.check import NAMED
    from invconv_conformance.run.selection import checks

    assert str(sys.modules["invconv"].__file__).startswith(str(folder))
    (library,) = (one for one in LIBRARIES if one.name == wanted.library)
    columns = [c for c in library.columns() if c.dtype in wanted.dtypes]
    cases = [name for p in wanted.cases.split() for name in fnmatch.filter(NAMED, p)]
    broken, held = "", False
    for check in checks(columns, dict.fromkeys(cases), list(LAWS), wanted.quick):
        result = check.run()
        held |= result.status == "pass"
        if result.bad and not broken:
            broken = f"{result.law}, {result.case}, {result.what}"
        if broken and held:
            break
    report.write_text(json.dumps([broken, held]), encoding="utf-8")


FAULTS = load()
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
    with copied() as folder:
        for fault in FAULTS:
            fault.planted(folder)
