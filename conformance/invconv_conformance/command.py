"""``invconv conformance``: the laws, on every library, device, mode and dtype."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import write_text
from invconv_conformance import printing
from invconv_conformance.arguments import words
from invconv_conformance.libraries.environment import environment, settings, share_the_card
from invconv_conformance.libraries.table import COMPILING_EAGERLY, LIBRARIES
from invconv_conformance.pages.conformance import as_page
from invconv_conformance.report import documents, terminal
from invconv_conformance.report.agreement import agreement
from invconv_conformance.run import expected
from invconv_conformance.run.result import Outcome
from invconv_conformance.run.runner import Task, tasks
from invconv_conformance.run.runner import run as run_tasks
from invconv_conformance.run.selection import choose, few_eager, quickly, select, select_laws

_ON_A_GPU = 4  # workers, each of which takes some of its memory for itself
_FILES = ("json", "html", "junit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = ", ".join(library.name for library in LIBRARIES)
    parser.add_argument(
        "--library", type=words, help=f"all (the default), or some of {names}, with commas between"
    )
    parser.add_argument(
        "--namespace", help="an array library that nobody adapted, by import name: dask.array"
    )
    parser.add_argument(
        "--device", type=words, help="only these devices, such as cpu,cuda:0; cuda means all"
    )
    parser.add_argument(
        "--mode", type=words, help="only these modes: eager, jit; torch also aot_eager, inductor"
    )
    parser.add_argument("--dtype", type=words, help="only these dtypes, such as float64,float32")
    parser.add_argument("--cases", default="*", help='names of cases, such as "periodic-*"')
    parser.add_argument("--laws", default="*", help='ids of laws, such as "vjp.*"')
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one case of each kind, in float64 and float32 (compiled: float32; "
        "eager JAX, which compiles too: float64)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes; one a core unless --quick or few cases are chosen, or a GPU",
    )
    parser.add_argument(
        "--expected-failures", type=Path, help="a list of known failures, instead of our own"
    )
    parser.add_argument("--json", type=Path, help="write every result here")
    parser.add_argument("--html", type=Path, help="write a page to look at here")
    parser.add_argument("--junit", type=Path, help="write a JUnit report here")


def run(arguments: argparse.Namespace) -> int:
    """Run the laws, print the table, write the files; 1 if a law failed."""
    # XLA compiles thousands of small programs here; how fast they run does not matter
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    share_the_card()
    columns, absent = choose(arguments)
    cases, laws = select(arguments.cases, arguments.quick), select_laws(arguments.laws)
    _require_places(arguments)
    if arguments.workers is not None and arguments.workers < 1:
        raise CommandError(f"--workers: expected at least 1, got {arguments.workers}")
    entries = expected.load(arguments.expected_failures)
    start = time.perf_counter()
    console = printing.console()
    todo = tasks(columns, cases, laws)
    if arguments.quick:
        todo = quickly(todo)
    absent += few_eager(todo)
    outcomes = _perform(todo, arguments.workers, console)
    results, stale = expected.mark([r for o in outcomes for r in o.results], entries)
    partly = arguments.quick or arguments.device or arguments.mode or arguments.dtype
    stale = [] if partly else [e for e in stale if e.covered_by(cases, laws)]
    found = documents.Run(
        f"python -m invconv {shlex.join(sys.argv[1:])}",
        columns,
        results,
        absent,
        agreement(outcomes),
        time.perf_counter() - start,
        max((outcome.peak for outcome in outcomes), default=0),
    )
    if columns and all(r.status == "not applicable" for r in results):
        raise CommandError("these laws say nothing of these cases here: nothing was checked")
    terminal.show(console, found, stale, len(laws), len({task.case for task in todo}))
    _write(arguments, found)
    return 1 if stale or not results or any(r.bad for r in results) else 0


def _require_places(arguments: argparse.Namespace) -> None:
    """Raise unless each file that is to be written has a folder, and a path of its own."""
    paths = [p.absolute() for p in (getattr(arguments, name) for name in _FILES) if p is not None]
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"there is no folder {path.parent} to write {path.name} in")
    if len(set(paths)) < len(paths) or any(p.is_dir() for p in paths):
        raise CommandError(
            "expected a file for each of --json, --html and --junit, each another one"
        )


def _perform(todo: list[Task], workers: int | None, console: Console) -> list[Outcome]:
    """Run the tasks and return what they found, in the order of the tasks."""
    slow = any(column.library in COMPILING_EAGERLY for task in todo for column in task.columns)
    few = len(todo) <= (2 if slow else 20)
    on_gpu = any(column.device.startswith("cuda") for task in todo for column in task.columns)
    most = min(os.cpu_count() or 1, _ON_A_GPU if on_gpu else sys.maxsize)
    count = workers or (1 if few else most)
    bars = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}")
    found: list[Outcome] = []
    with _for_workers(count), Progress(*bars, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(todo))
        with closing(run_tasks(todo, count)) as results:
            for outcomes in results:
                found += outcomes
                last = outcomes[-1] if outcomes else None
                text = f"{last.column.library} {last.case}" if last else ""
                progress.update(bar, advance=1, description=text)
    places = {(task.case, c): i for i, task in enumerate(todo) for c in task.columns}
    return sorted(found, key=lambda o: places[o.case, o.column])


@contextmanager
def _for_workers(count: int) -> Iterator[None]:
    """Let workers take a core each, where the user has not said otherwise."""
    if count == 1:
        yield
        return
    with TemporaryDirectory(prefix="invconv-") as programs:
        wanted = settings(1, programs)
        with environment({k: v for k, v in wanted.items() if k not in os.environ}):
            yield


def _write(arguments: argparse.Namespace, found: documents.Run) -> None:
    document = documents.as_json(found)
    if arguments.json is not None:
        write_text(arguments.json, documents.dumps(document))
    if arguments.html is not None:
        write_text(arguments.html, as_page(document))
    if arguments.junit is not None:
        text = ElementTree.tostring(documents.as_junit(found.results), "unicode")
        write_text(arguments.junit, text)
