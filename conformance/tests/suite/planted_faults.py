"""Plant faults, one at a time, and show that the conformance suite catches each.

``python conformance/tests/suite/planted_faults.py`` prints which law on which case caught what, and
exits with 1 if one was not caught. The faults are in ``planted_faults.toml``.
"""

from __future__ import annotations

import argparse
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[3]
_LONGEST = 300  # seconds, for a fault that never ends
# what the suite imports that is not ours; what is missing here is imported in every fork
_PRELOADED = [
    *("array_api_compat.numpy", "array_api_strict", "jinja2", "llvmlite.binding", "numpy"),
    *("rich.console", "rich.progress", "rich.table", "scipy.linalg", "tests.suite.planted_faults"),
]


class Stage(NamedTuple):
    """A part of the suite: some dtypes, or all, and the laws of a pattern."""

    dtypes: tuple[str, ...]
    laws: str


_STAGES = (
    Stage(("float64",), "[!s]*"),  # all laws but the one that takes longest: same_bits
    Stage(("float64",), "[sk]*"),
    Stage((), "*"),
)
_COMPILED_STAGES = (Stage((), "[!s]*"), Stage((), "*"))  # where a program takes seconds


@dataclass(frozen=True)
class Fault:
    """A wrong line.

    Attributes
    ----------
    name : str
    file : str
        Of the core, or of an adapter: "invconv_torch/remembered.py".
    old, new : str
        What is there once, and what takes its place.
    cases : str
        A pattern; the cases to run.
    library : str
        "array_api_strict" where NumPy runs a primitive of its own, or has no second device.
    quick : bool
        Whether ``--quick`` is to catch it: only its cases and dtypes are run.
    plain : bool
        Whether it is in what runs where the compiled kernel does not, which then does not.
    """

    name: str
    file: str
    old: str
    new: str
    cases: str
    library: str = "numpy"
    quick: bool = False
    plain: bool = False

    @property
    def sound(self) -> Fault:
        """No fault, looked for in the same way."""
        return replace(self, name="", file="", old="", new="")

    def plant(self, folder: Path) -> None:
        """Edit a copy of the packages."""
        if self.plain:
            _without_kernel(folder / "invconv")
        if not self.file:
            return
        plant(folder, self.name, self.file, self.old, self.new)


def plant(folder: Path, name: str, file: str, old: str, new: str) -> None:
    """Edit a file of the core or of an adapter in a copy of the packages."""
    path = path_of(folder, file)
    text = path.read_text(encoding="utf-8")
    found = text.count(old)
    if found != 1:
        raise ValueError(f"{name}: expected `old` once in {file}, found it {found} x")
    _rewrite(path, text.replace(old, new))


def path_of(folder: Path, file: str) -> Path:
    """Return where a file of the core or of an adapter is."""
    return folder / ("" if file.startswith("invconv_") else "invconv") / file


def _without_kernel(core: Path) -> None:
    """Let the core find llvmlite too old."""
    path = core / "kernels" / "cpu" / "machine.py"
    text, times = re.subn('^OLDEST = ".+"', 'OLDEST = "999"', path.read_text("utf-8"), flags=re.M)
    if times != 1:
        raise ValueError(f"expected the oldest llvmlite once in {path}")
    _rewrite(path, text)


def _rewrite(path: Path, text: str) -> None:
    """Write a module, and forget what was compiled of it."""
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


@dataclass(frozen=True)
class Verdict:
    """What the suite said: its exit status, and its results unless it could not run.

    A process that died caught nothing: its status is another one than 1.
    """

    status: int
    results: tuple[dict[str, Any], ...]
    output: str

    @property
    def bad(self) -> list[dict[str, Any]]:
        """The results that failed, wrong values before errors."""
        found = [r for r in self.results if r["status"] in ("fail", "error")]
        return sorted(found, key=lambda r: str(r["status"] == "error"))

    @property
    def caught(self) -> bool:
        """Whether the suite ran, and some law broke while another held."""
        return self.status == 1 and 0 < len(self.bad) < len(self.results)

    @property
    def laws(self) -> list[str]:
        """The laws that broke."""
        return list(dict.fromkeys(r["law"] for r in self.bad))


def load() -> tuple[Fault, ...]:
    """Return the faults of the list."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tuple(Fault(**entry) for entry in tomllib.loads(text)["fault"])


FAULTS = load()


def judge(fault: Fault) -> tuple[Verdict, Verdict]:
    """Run the suite without a fault and with it: what is quick, then more until it is caught."""
    for stage in _COMPILED_STAGES if fault.library == "jax" else _STAGES:
        verdict = _judge(fault, stage)
        if verdict.caught and judge_sound(fault.sound, stage).status == 0:
            break
    return judge_sound(fault.sound, stage), verdict


@functools.cache
def judge_sound(sound: Fault, stage: Stage) -> Verdict:
    """Run the suite on the core as it is, in the way of `Fault.sound`."""
    return _judge(sound, stage)


def _judge(fault: Fault, stage: Stage) -> Verdict:
    with copied() as folder:
        fault.plant(Path(folder))
        return _conformance(Path(folder), fault, stage)


def copied() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with a copy of the core and the adapters, their primitives registered."""
    folder = tempfile.TemporaryDirectory(prefix="invconv-fault-")
    to = Path(folder.name)
    shutil.copytree(ROOT / "invconv", to / "invconv")
    entries = ["[invconv.backends]", "numpy = invconv.kernels.numpy_primitives"]
    for library in ("torch", "jax"):
        shutil.copytree(ROOT / "backends" / f"invconv_{library}", to / f"invconv_{library}")
        entries.append(f"{library} = invconv_{library}.primitives")
    info = to / "invconv-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: invconv\nVersion: 0\n")
    (info / "entry_points.txt").write_text("\n".join(entries) + "\n")
    return folder


def _conformance(folder: Path, fault: Fault, stage: Stage) -> Verdict:
    """Run the suite on a copy of the core, in a fork of a process that has imported the rest."""
    report, output = folder / "report.json", folder / "output.txt"
    process = _server().Process(target=_in_fork, args=(folder, report, output, fault, stage))
    process.start()
    process.join(_LONGEST)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{fault.name}: the suite did not end within {_LONGEST} s")
    results = json.loads(report.read_text()) if report.exists() else []
    held = tuple(r for r in results if r["status"] != "not applicable")
    return Verdict(process.exitcode, held, output.read_text().strip())


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes as forks of one that has imported all but the core."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _in_fork(folder: Path, report: Path, output: Path, fault: Fault, stage: Stage) -> None:
    """Run the suite on the copy of the core in a folder; exit with 1 where a law broke."""
    with output.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    imported = [name for name in sys.modules if name.partition(".")[0].startswith("invconv")]
    assert not imported, f"expected a process without the core, which has {imported}"
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(ROOT / "conformance")]
    sys.dont_write_bytecode = True
    from invconv_conformance.laws.table import LAWS
    from invconv_conformance.libraries.table import LIBRARIES
    from invconv_conformance.run.check import NAMED, perform
    from invconv_conformance.run.selection import checks, quick_dtypes

    assert str(sys.modules["invconv"].__file__).startswith(str(folder))
    (library,) = (one for one in LIBRARIES if one.name == fault.library)
    columns = [c for c in library.columns() if not stage.dtypes or c.dtype in stage.dtypes]
    if fault.quick:
        columns = [c for c in columns if c.dtype in quick_dtypes(c)]
    laws = fnmatch.filter(LAWS, stage.laws)
    cases = fnmatch.filter(NAMED, fault.cases)
    results = [asdict(r) for r in perform(checks(columns, cases, laws, fault.quick))]
    report.write_text(json.dumps(results))
    sys.exit(any(r["status"] in ("fail", "error") for r in results))


def main() -> int:
    """Judge every fault; 0 if all are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default="*", help='a pattern, such as "a raster *"')
    chosen = [f for f in FAULTS if fnmatch.fnmatchcase(f.name, parser.parse_args().names)]
    console = Console(highlight=False)
    table = Table("fault", "in", "caught by", title_justify="left")
    caught = 0
    for fault in track(chosen, "planted faults", console=console, transient=True):
        sound, verdict = judge(fault)
        if sound.status == 0 and verdict.caught:
            caught += 1
            others = f" and {len(verdict.laws) - 1} more" if len(verdict.laws) > 1 else ""
            by = f"{verdict.laws[0]}{others}, {verdict.bad[0]['case']}"
        elif sound.status == 1:
            by = "[yellow]the suite fails without it[/]"
        else:
            last = (verdict.output or "no law broke").splitlines()[-1]
            by = f"[red]not caught[/]: {last}"
        table.add_row(fault.name, fault.file, by)
    console.print(table)
    console.print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
