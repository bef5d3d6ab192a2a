"""``python -m invconv_conformance.cuda [--quick]``: the checks, one after the other, and tables."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from invconv.kernels.cuda.compile import library
from invconv_conformance import printing
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.cases.table import CASES
from invconv_conformance.cuda import compiler, draws, faults, plans, values
from invconv_conformance.cuda.build import Builder
from invconv_conformance.cuda.jobs import Job
from invconv_conformance.cuda.values import Verdict

_RANDOM, _RANDOM_QUICK = 150, 8
_EDGES = 24  # random jobs in which memory is watched


class Proof:
    """The checks, which print their verdicts; `failed` says how many found a fault."""

    def __init__(self, folder: Path, workers: Executor, console: Console, quick: bool) -> None:
        self.workers, self.console, self.quick = workers, console, quick
        self.failed = 0
        self._sound, self._races = Builder(folder, "values"), Builder(folder, "races")
        self._watched = Builder(folder, "edges")  # memory, and undefined behaviour

    def plans(self) -> None:
        """Every case of the list has a plan on every device."""
        asked, wrong = plans.without_plan()
        self._conclude(not wrong, f"plans: {asked} asked for, not as expected: {wrong or 'none'}")

    def values(self) -> None:
        """Results are those of the definition, and of the CPU's kernel bit for bit."""
        names = {*QUICK, *QUICK_MORE}
        listed = draws.listed_jobs(tuple(c for c in CASES if not self.quick or c.name in names))
        jobs: dict[str, Iterable[Job]] = {
            "case list": (job for job in listed if not self.quick or job.y.itemsize == 4),
            "random": draws.random_jobs(_RANDOM_QUICK if self.quick else _RANDOM, seed=0),
            "many channels": [] if self.quick else draws.many_channels(),
        }
        for name, some in jobs.items():
            self._tell(name, list(values.verdicts(self._sound, some, self.workers)))

    def sanitizers(self) -> None:
        """Neither races nor memory errors nor undefined behaviour, and the same bits."""
        groups = list(draws.small_jobs())
        self._judge("ThreadSanitizer", self._races, groups)
        few = [j for j in draws.random_jobs(_EDGES, seed=1) if j.conv.channels <= 9]  # real threads
        more = groups[:1] if self.quick else [*groups, *values.grouped(few)]
        self._judge("AddressSanitizer, UBSan", self._watched, more)

    def _judge(self, name: str, builder: Builder, groups: Iterable[list[Job]]) -> None:
        found = self.workers.map(lambda group: values.judge(builder, group), groups)
        self._tell(name, [verdict for group in found for verdict in group])

    def edges(self) -> None:
        """Memory that is one number too small is noticed."""
        job = draws.in_volumes()[0]  # in which every unit has a counter that is used
        smaller = faults.too_small(job).items()
        missed = [w for w, one in smaller if not values.judge(self._watched, [one])[0].failure]
        self._conclude(not missed, f"memory a number too small: unnoticed: {missed or 'none'}")

    def faults(self) -> None:
        """Every fault that is planted into the source is caught."""
        planes, others = draws.in_volumes(), list(draws.small_jobs())
        pairs = [(self._races, planes), (self._sound, planes)]
        pairs += [(self._races, group) for group in others[: 1 if self.quick else None]]
        watchers = [faults.Watcher.of(*pair) for pair in pairs]
        planted = list(faults.planted())
        found = list(self.workers.map(lambda f: faults.caught(f, watchers), planted))
        table = Table("place", "fault", "caught as", title="planted faults")
        for fault, how in zip(planted, found, strict=True):
            table.add_row(f"{fault.file}:{fault.line}", fault.what, how or "[red]not caught[/]")
        self.console.print(table)
        missed, unspoilt = found.count(None), faults.unspoilt()
        line = f"faults planted: {len(found)}, caught: {len(found) - missed}"
        line += f"; lines where none was planted: {', '.join(unspoilt)}" if unspoilt else ""
        self._conclude(missed == 0 and not unspoilt, line)

    def compiler(self) -> None:
        """Nothing spills, and blocks fit into a multiprocessor."""
        found = list(compiler.reports(self.workers, quick=self.quick))
        columns = ("solve", "architecture", "registers", "spills", "threads", "shared bytes")
        table = Table(*columns, title="compiled by NVRTC")
        for r in found:
            if r.function == "solve" or not r.right:
                name = r.name if r.right else f"[red]{r.name} {r.function}[/]"
                numbers = map(str, (r.registers, r.spilled + r.stack, r.threads))
                table.add_row(name, f"sm_{r.architecture}", *numbers, f"{r.shared} of {r.limit}")
        self.console.print(table)
        spills = sum(r.spilled for r in found)
        right = all(r.right for r in found)
        self._conclude(right, f"NVRTC: {len(found)} functions, spills: {spills} bytes")

    def _tell(self, name: str, found: Sequence[Verdict]) -> None:
        """Conclude on many solves, if there are any."""
        if not found:
            return
        compared = [v.same_bits for v in found if v.same_bits is not None]
        bits = f"bits as the CPU's kernel: {sum(compared)} of {len(compared)}"
        worst = max((v.error for v in found if not v.failure), default=0.0)
        parts = f"{name}: {len(found)} solves", f"worst backward error {worst:.1f} eps", bits
        folded = f"{sum(v.substitutes for v in found)} substitute at the pixel"
        self._conclude(all(v.right for v in found), ", ".join((*parts, folded)))
        for v in (v for v in found if not v.right):
            c = v.job.conv
            self.console.print(
                f"  {v.job.name}: kernel {c.kernel.shape}, {c.mask}, {c.direction}, dilation "
                f"{c.dilation}, y {v.job.y.shape} {v.job.y.dtype}, {v.job.launch}, {v.job.resident}"
                f" blocks at a time: error {v.error} eps of {v.bound}, bits {v.same_bits} "
                f"{v.failure[:2000]}"
            )

    def _conclude(self, right: bool, line: str) -> None:
        self.failed += not right
        self.console.print(f"{'[green]✓[/]' if right else '[red]✗[/]'} {line}")

    def checks(self) -> Iterator[tuple[Callable[[], None], str]]:
        """Yield every check, with the reason why it cannot run or nothing."""
        no_compiler = "" if shutil.which("g++") else "no g++"
        no_compiler = no_compiler if sys.platform == "linux" else "not Linux"
        yield self.plans, ""
        for check in (self.values, self.sanitizers, self.edges, self.faults):
            yield check, no_compiler
        yield self.compiler, "" if library() else "no NVRTC: pip install nvidia-cuda-nvrtc-cu12"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proof and return 1 if any check fails."""
    parser = argparse.ArgumentParser(prog="python -m invconv_conformance.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of it, within 90 seconds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    console, start = printing.console(), time.perf_counter()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.workers) as workers:
        proof = Proof(Path(folder), workers, console, arguments.quick)
        for check, missing in proof.checks():
            if missing:
                console.print(f"- {check.__name__}: not run: {missing}")
            else:
                check()
    seconds = math.ceil(time.perf_counter() - start)
    console.print(f"{proof.failed} checks failed, {seconds} s with {arguments.workers} workers")
    return 1 if proof.failed else 0
