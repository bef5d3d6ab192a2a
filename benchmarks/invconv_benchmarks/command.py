"""``invconv benchmark``: libraries, devices and layers side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import write_text
from invconv_benchmarks.measure import environment
from invconv_benchmarks.options import numbers
from invconv_benchmarks.report import changes, page, plots, tables
from invconv_benchmarks.results import fits, result
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.runs.schedule import Plan, Step, perform
from invconv_benchmarks.suites.group import SUITES, Shape
from invconv_benchmarks.suites.groups import select
from invconv_conformance import printing
from invconv_conformance.arguments import words
from invconv_conformance.libraries.environment import share_the_card
from invconv_conformance.libraries.table import LIBRARIES

_NEEDS = "needs an NVIDIA GPU with its driver, and PyTorch, JAX or CuPy built for CUDA: none here"
_CHECKERS = ("array_api_strict",)  # these libraries are made to find mistakes, not to be fast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "suite",
        nargs="?",
        default="all",
        choices=(*SUITES, "all", "compare"),
        help=f"{', '.join(SUITES)} or all (the default); or compare, with two result files",
    )
    parser.add_argument("files", nargs="*", type=Path, help="of compare: the results A and B")
    _add_choices(parser)
    parser.add_argument(
        "--quick", action="store_true", help="under 3 minutes; without it, under 30"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("invconv-benchmark"),
        help="the folder for result.json, index.html and pictures (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="of compare: list what is the same too")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured, and where."""
    names = ", ".join(library.name for library in LIBRARIES)
    parser.add_argument(
        "--library", type=words, help=f"a comma-separated list of {names}; default: all"
    )
    parser.add_argument(
        "--device", type=words, help="only these devices, such as cpu,cuda:0; cuda means all"
    )
    parser.add_argument(
        "--dtype",
        type=words,
        default=("float32", "float64"),
        help="such as float32,float64 (the default)",
    )
    parser.add_argument(
        "--threads", type=words, help="such as 1,2; default: 1 and all cores, --quick: 1"
    )
    parser.add_argument(
        "--shapes",
        type=words,
        default=(),
        help="B x C x H x W, such as 64x12x16x16,1x3x512x512, instead of the suite's",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables and write the files; or compare two results."""
    console = printing.console()
    if arguments.suite == "compare":
        return _compare(arguments, console)
    if arguments.files:
        raise CommandError(f"expected files only after compare, got {arguments.files[0]}")
    share_the_card()
    plan = make_plan(arguments)
    folder = arguments.out
    if not folder.absolute().parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise CommandError(f"--out: expected a folder, or a name for one, got {folder}")
    folder.mkdir(exist_ok=True)
    words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
    bars = (BarColumn(16), MofNCompleteColumn(), TimeRemainingColumn(compact=True), words)
    with Progress(*bars, console=console, transient=True, expand=True) as progress:
        found = perform(plan, _shown(progress))
    report(found, folder, console)
    if not found.complete:
        return 130
    _sample_a_glow(arguments.suite, plan, folder, console)
    return 0


def _sample_a_glow(suite: str, plan: Plan, folder: Path, console: Console) -> None:
    """Time a whole flow too, where solves are timed on a CUDA device of PyTorch."""
    device = next((d for name, d in plan.targets if name == "torch" and d.startswith("cuda")), None)
    if device is not None and suite in ("inverse", "all"):
        from invconv_benchmarks.density.evaluation import beside_finc

        beside_finc.run(device, console, folder)


def _shown(progress: Progress) -> Step:
    """Return what shows how far a run is: a bar, or without a terminal a line for each pass."""
    bar, said = progress.add_task("", total=None), ""

    def step(text: str, done: int, total: int) -> None:
        nonlocal said
        progress.update(bar, description=text, completed=done, total=total)
        part = text.partition(":")[0]
        if part != said and not progress.console.is_terminal:
            progress.console.print(f"{done} of {total} groups done; {part}")
        said = part

    return step


def report(found: Result, folder: Path, console: Console) -> None:
    """Write the files of a result and print its tables."""
    result.write(folder / "result.json", found)
    found = result.read(folder / "result.json")
    pictures = plots.draw(found, folder)
    write_text(folder / "index.html", page.as_page(found, pictures))
    for table in tables.tables(found):
        console.print(table)
        console.print()
    console.print(_NOTES, highlight=False, soft_wrap=True)
    if unstated := fits.unstated(found.rows):
        console.print(unstated, highlight=False, soft_wrap=True)
    for reason in found.not_run:
        console.print(f"not run: {reason}")
    for row in found.rows:
        if row.error and row.role == "ours":
            console.print(f"[red]failed[/]: {row.contender} {row.library}: {row.error}")
    if not found.complete:
        console.print("[yellow]stopped early[/]: this is what was measured until then")
    console.print(
        f"{folder}/index.html, result.json and {len(pictures)} pictures: "
        f"{found.passes} passes, {found.seconds:.0f} s",
        markup=False,
    )


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Return what the options ask for.

    Raises
    ------
    ValueError
        If an option cannot be understood, a library that was asked for cannot run, or nothing is
        left to run.
    """
    targets, not_run = _targets(arguments)
    quick = arguments.quick
    for dtype in arguments.dtype:
        if dtype not in ("float32", "float64"):
            raise CommandError(f"--dtype: expected some of float32, float64, got {dtype!r}")
    shapes = [_shape(s) for s in arguments.shapes]
    groups = tuple(select(arguments.suite, shapes, arguments.dtype, quick))
    if not groups:
        raise CommandError(f"the suite {arguments.suite} has nothing to run with these options")
    return Plan(
        command=f"python -m invconv {shlex.join(sys.argv[1:])}",
        groups=groups,
        targets=targets,
        threads=_threads(arguments),
        not_run=not_run,
        quick=quick,
        passes=2 if quick else 3,
        seconds=0.08 if quick else 0.2,
        deadline=150 if quick else 1500,
    )


def _targets(arguments: argparse.Namespace) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    known = {library.name: library for library in LIBRARIES}
    asked = arguments.library not in (None, ("all",))
    names = arguments.library if asked else [n for n in known if n not in _CHECKERS]
    wanted = arguments.device or ()
    found, absent = [], []
    for name in names:
        if name not in known:
            raise CommandError(f"--library: expected some of {', '.join(known)}, got {name!r}")
        if reason := known[name].absent():
            if asked:
                raise CommandError(f"--library: {reason}")
            absent.append(reason)
            continue
        devices = known[name].devices()
        found += [
            (name, d) for d in devices if not wanted or d in wanted or d.partition(":")[0] in wanted
        ]
        if name in ("torch", "jax") and len(devices) == 1:
            absent.append(f"{known[name].title} on CUDA: not yet run on a GPU, there is none here")
    if not found and {d.partition(":")[0] for d in wanted} == {"cuda"}:
        raise CommandError(f"--device: {','.join(wanted)} {_NEEDS}")
    if not found:
        raise CommandError(f"--device: nothing that is installed here has {','.join(wanted)!r}")
    return tuple(found), tuple(absent)


def _threads(arguments: argparse.Namespace) -> tuple[int, ...]:
    cores = environment.cores()
    if arguments.threads is None:
        return (1,) if arguments.quick else tuple(sorted({1, cores}))
    found = sorted(numbers("--threads", arguments.threads, int))
    if not found or found[0] < 1 or found[-1] > cores:
        got = ",".join(arguments.threads)
        raise CommandError(
            f"--threads: expected numbers from 1 to {cores}, such as 1,2, got {got!r}"
        )
    return tuple(found)


def _shape(text: str) -> Shape:
    try:
        shape = tuple(int(n) for n in text.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise CommandError(f"--shapes: expected B x C x H x W such as 64x12x16x16, got {text!r}")
    return shape


def _compare(arguments: argparse.Namespace, console: Console) -> int:
    if len(arguments.files) != 2:
        raise CommandError(f"compare: expected two result files, got {len(arguments.files)}")
    before, after = (
        result.read(path / "result.json" if path.is_dir() else path) for path in arguments.files
    )
    found, notes = changes.changes(before, after)
    if arguments.all or any(c.verdict != "same" for c in found):
        console.print(changes.table(found, everything=arguments.all))
    for note in notes:
        console.print(note)
    console.print(changes.summary(found))
    return 0


_NOTES = """\
÷ plain: the ratio to the library's fastest plain convolution; ÷ F.conv2d: to PyTorch's, on images
padded beforehand, in the same run; with the spread that two runs should agree within. roofline: the
least time at the measured ceilings, as a share. x ours: how much longer the peer takes than invconv
in that library. Limits: "pass" where the whole spread keeps it, "miss" where
none of it does, else "unclear"."""
