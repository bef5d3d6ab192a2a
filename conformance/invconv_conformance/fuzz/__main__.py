"""``python -m invconv_conformance.fuzz files|calls --count 100000``; needs invconv[test]."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from invconv_conformance import printing
from invconv_conformance.fuzz import corpus
from invconv_conformance.fuzz.engine import Batch, Tally, batches, run

_BATCH = 500
_SHOWN = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run one kind of fuzzing and return 1 if something ended as it should not have."""
    arguments = _parser().parse_args(argv)
    console = printing.console()
    if arguments.kind == "corpus":
        paths = corpus.write(arguments.folder)
        size = sum(path.stat().st_size for path in paths)
        console.print(f"{len(paths)} files of {size} bytes in {arguments.folder}")
        return 0
    perform = importlib.import_module(f"invconv_conformance.fuzz.{arguments.kind}").perform
    todo = batches(perform, arguments.seed, arguments.count, _BATCH)
    if arguments.only is not None:
        size = _BATCH if arguments.kind == "calls" else 1
        todo = [Batch(perform, arguments.seed, arguments.only, size)]
    start = time.perf_counter()
    total = fuzz(todo, arguments.workers, arguments.seconds, console)
    _print(console, total, time.perf_counter() - start)
    return 1 if total.failures else 0


def fuzz(todo: list[Batch], workers: int, longest: float, console: Console) -> Tally:
    """Do the batches behind a progress bar, and return their sum."""
    total = Tally()
    bars = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}")
    with Progress(*bars, console=console, transient=True) as progress:
        bar = progress.add_task("", total=sum(batch.count for batch in todo))
        for batch, tally in run(todo, workers, longest):
            total.ends += tally.ends
            total.failures += tally.failures
            total.peak = max(total.peak, tally.peak)
            failed = f"[red]{len(total.failures)} failed[/]" if total.failures else ""
            progress.update(bar, advance=batch.count, description=failed)
    return total


def _print(console: Console, total: Tally, seconds: float) -> None:
    for failure in total.failures[:_SHOWN]:
        console.print(failure, highlight=False, markup=False, soft_wrap=True)
    ends: Counter[str] = total.ends
    for end, count in ends.most_common():
        console.print(f"{count:9,d}  {end}", highlight=False)
    console.print(
        f"{ends.total():9,d}  in {seconds:.0f} s, {len(total.failures)} failed; "
        f"a worker had {total.peak / 2**20:.0f} MiB at most",
        highlight=False,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m invconv_conformance.fuzz", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, what in (
        ("files", "damaged parameter files: an operator, or InvalidFileError"),
        ("calls", "random calls: a result, or an exception that is documented"),
    ):
        one = kinds.add_parser(kind, help=what, description=what)
        one.add_argument("--count", type=int, default=2000)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--only", type=int, help="this item, of a failure (calls: its batch)")
        one.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
        one.add_argument("--seconds", type=float, default=20.0, help="that an item may take")
    made = kinds.add_parser("corpus", help="make the files anew that damage starts from")
    made.add_argument("--folder", type=Path, default=corpus.FOLDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
