"""``python -m invconv_conformance.cuda [--quick]``: the checks, one after the other, and tables."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from invconv.kernels.cuda.compile import library
from invconv_conformance import printing
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.cases.table import CASES
from invconv_conformance.cuda import compiler, draws, faults, plans, tables, values
from invconv_conformance.cuda.build import Builder
from invconv_conformance.cuda.jobs import Job

_RANDOM, _RANDOM_QUICK = 150, 8
_EDGES = 24  # random jobs in which memory is watched


class Proof:
    """The checks, which print what they find; `failed` says how many found a fault."""

    def __init__(self, folder: Path, workers: Executor, console: Console, quick: bool) -> None:
        self.folder, self.workers, self.console, self.quick = folder, workers, console, quick
        self.failed = 0
        self._sound = Builder(folder, "values")
        self._races = Builder(folder, "races")

    def plans(self) -> None:
        """Every case of the list has a plan on every device."""
        asked, wrong = plans.without_plan()
        self._conclude(not wrong, f"plans: {asked} asked for, not as expected: {wrong or 'none'}")

    def values(self) -> None:
        """Results are those of the definition, and of the CPU's kernel bit for bit."""
        names = {*QUICK, *QUICK_MORE}
        listed = tuple(c for c in CASES if not self.quick or c.name in names)
        sources: list[tuple[str, Iterator[Job]]] = [
            ("case list", (job for job in draws.listed_jobs(listed) if self._wanted(job))),
            ("random", draws.random_jobs(_RANDOM_QUICK if self.quick else _RANDOM, seed=0)),
        ]
        if not self.quick:
            sources.append(("many channels", draws.many_channels()))
        for name, jobs in sources:
            found = list(values.verdicts(self._sound, jobs, self.workers))
            self._conclude(all(v.right for v in found), tables.values_line(name, found))
            for verdict in found:
                if not verdict.right:
                    self.console.print(tables.wrong(verdict))

    def _wanted(self, job: Job) -> bool:
        return not self.quick or job.y.itemsize == 4

    def sanitizers(self) -> None:
        """Neither races nor memory errors nor undefined behaviour, and the same bits."""
        groups = list(draws.small_jobs())
        for mode, what in (("races", "ThreadSanitizer"), ("edges", "AddressSanitizer, UBSan")):
            some = groups
            if mode == "edges":
                some = groups[:1] if self.quick else [*groups, *values.grouped(self._few())]
            builder = self._races if mode == "races" else Builder(self.folder, "edges")
            found = list(self.workers.map(lambda g, b=builder: values.judge(b, g), some))
            flat = [verdict for group in found for verdict in group]
            self._conclude(all(v.right for v in flat), tables.values_line(what, flat))
            for verdict in flat:
                if not verdict.right:
                    self.console.print(tables.wrong(verdict))

    def edges(self) -> None:
        """Memory that is one number too small is noticed."""
        builder, missed = Builder(self.folder, "edges"), []
        job = draws.in_volumes()[0]  # in which every unit has a counter that is used
        for what, smaller in faults.too_small(job).items():
            if not values.judge(builder, [smaller])[0].failure:
                missed.append(what)
        self._conclude(not missed, f"memory a number too small: unnoticed: {missed or 'none'}")

    def _few(self) -> list[Job]:
        few = draws.random_jobs(_EDGES, seed=1)
        return [job for job in few if job.conv.channels <= 9]  # threads are real here

    def faults(self) -> None:
        """Every fault that is planted into the source is caught."""
        planes, others = draws.in_volumes(), list(draws.small_jobs())
        pairs = [(self._races, planes), (self._sound, planes), (self._races, others[0])]
        if not self.quick:
            pairs += [(self._races, group) for group in others[1:]]
        watchers = [faults.Watcher.of(*pair) for pair in pairs]
        planted = list(faults.planted())
        found = list(self.workers.map(lambda f: faults.caught(f, watchers), planted))
        self.console.print(tables.faults_table(planted, found))
        missed = found.count(None)
        line = f"faults planted: {len(found)}, caught: {len(found) - missed}"
        unspoilt = faults.unspoilt()
        if unspoilt:
            line += f"; lines where none was planted: {', '.join(unspoilt)}"
        self._conclude(missed == 0 and not unspoilt, line)

    def compiler(self) -> None:
        """Nothing spills, and blocks fit into a multiprocessor."""
        found = list(compiler.reports(self.workers, quick=self.quick))
        self.console.print(tables.compiler_table(found))
        right = all(report.right for report in found)
        self._conclude(
            right, f"NVRTC: {len(found)} functions, spills: {sum(r.spilled for r in found)} bytes"
        )

    def on_a_cpu(self) -> tuple[Callable[[], None], ...]:
        """Return the checks that need g++."""
        return self.values, self.sanitizers, self.edges, self.faults

    def _conclude(self, right: bool, line: str) -> None:
        self.failed += not right
        mark = "[green]✓[/]" if right else "[red]✗[/]"
        self.console.print(f"{mark} {line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proof and return 1 if any check fails."""
    parser = argparse.ArgumentParser(prog="python -m invconv_conformance.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of it, within 90 seconds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    console, start = printing.console(), time.perf_counter()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.workers) as workers:
        proof = Proof(Path(folder), workers, console, arguments.quick)
        checks: list[tuple[Callable[[], None], str]] = [(proof.plans, "")]
        no_compiler = "" if shutil.which("g++") else "no g++"
        if sys.platform != "linux":
            no_compiler = "not Linux"
        no_nvrtc = "" if library() else "no NVRTC: pip install nvidia-cuda-nvrtc-cu12"
        checks += [(check, no_compiler) for check in proof.on_a_cpu()]
        checks.append((proof.compiler, no_nvrtc))
        for check, missing in checks:
            if missing:
                console.print(f"- {check.__name__}: not run: {missing}")
            else:
                check()
    seconds = math.ceil(time.perf_counter() - start)
    console.print(f"{proof.failed} checks failed, {seconds} s with {arguments.workers} workers")
    return 1 if proof.failed else 0
