"""Plant faults into the core, one at a time, and show that the conformance suite catches each.

``python conformance/tests/suite/planted_faults.py`` prints which law on which case caught what, and
exits with 1 if one was not caught. The faults are in ``planted_faults.toml``.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[3]
_LONGEST = 120  # seconds, for a fault that never ends


@dataclass(frozen=True)
class Fault:
    """A wrong line.

    Attributes
    ----------
    name : str
    file : str
        Of the core.
    old, new : str
        What is there once, and what takes its place.
    cases : str
        A pattern; the cases to run.
    library : str
        "array_api_strict" where NumPy runs a primitive of its own, or has no second device.
    quick : bool
        Whether ``--quick`` is to catch it: only its cases are run.
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

    def plant(self, core: Path) -> None:
        """Edit a copy of the core."""
        if self.plain:
            _without_kernel(core)
        if not self.file:
            return
        path = core / self.file
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: expected `old` once in {self.file}, found it {found} x")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def _without_kernel(core: Path) -> None:
    """Let the core find llvmlite too old."""
    path = core / "kernels" / "machine.py"
    known, future = "_OLDEST = (0, 45)", "_OLDEST = (999, 0)"
    text = path.read_text(encoding="utf-8")
    if text.count(known) != 1:
        raise ValueError(f"expected `{known}` once in {path}")
    path.write_text(text.replace(known, future), encoding="utf-8")


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


def judge(fault: Fault) -> Verdict:
    """Plant a fault and run the suite."""
    with _copy() as folder:
        fault.plant(Path(folder) / "invconv")
        return _conformance(Path(folder), fault)


@functools.cache
def judge_sound(sound: Fault) -> Verdict:
    """Run the suite on the core as it is, in the way of `Fault.sound`."""
    with _copy() as folder:
        sound.plant(Path(folder) / "invconv")
        return _conformance(Path(folder), sound)


def _copy() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with a copy of the core, NumPy's primitives registered."""
    folder = tempfile.TemporaryDirectory(prefix="invconv-fault-")
    to = Path(folder.name)
    shutil.copytree(ROOT / "invconv", to / "invconv", ignore=shutil.ignore_patterns("__pycache__"))
    info = to / "invconv-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: invconv\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[invconv.backends]\nnumpy = invconv.kernels.numpy_primitives\n"
    )
    return folder


def _conformance(folder: Path, fault: Fault) -> Verdict:
    report = folder / "report.json"
    options = ["--library", fault.library, "--cases", fault.cases, "--json", str(report)]
    options += ["--workers", "1", *(["--quick"] if fault.quick else [])]
    done = subprocess.run(
        [sys.executable, "-m", "invconv", "conformance", *options],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "conformance")])}
        | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LONGEST,
    )
    results = json.loads(report.read_text())["results"] if report.exists() else []
    held = tuple(r for r in results if r["status"] != "not applicable")
    return Verdict(done.returncode, held, (done.stdout + done.stderr).strip())


def main() -> int:
    """Judge every fault; 0 if all are caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default="*", help='a pattern, such as "a raster *"')
    chosen = [f for f in FAULTS if fnmatch.fnmatchcase(f.name, parser.parse_args().names)]
    console = Console(highlight=False)
    table = Table("fault", "in", "caught by", title_justify="left")
    caught = 0
    for fault in track(chosen, "planted faults", console=console, transient=True):
        sound = judge_sound(fault.sound)
        verdict = judge(fault)
        if sound.status == 0 and verdict.caught:
            caught += 1
            others = f" and {len(verdict.laws) - 1} more" if len(verdict.laws) > 1 else ""
            by = f"{verdict.laws[0]}{others}, {verdict.bad[0]['case']}"
        elif sound.status == 1:
            by = "[yellow]the suite fails without it[/]"
        else:
            last = verdict.output.splitlines()[-1]
            by = f"[red]not caught[/]: {last}"
        table.add_row(fault.name, fault.file, by)
    console.print(table)
    console.print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
