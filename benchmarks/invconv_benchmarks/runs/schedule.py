"""The schedule of a run: passes of worker processes, until time is up or the user stops it."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from invconv_benchmarks.results import limits
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row, merged
from invconv_benchmarks.runs.worker import Job, run
from invconv_benchmarks.suites.group import Group

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Schedule:
    """What to measure."""

    command: str  # the words that were typed
    groups: tuple[Group, ...]
    targets: tuple[tuple[str, str], ...]  # libraries and devices
    threads: tuple[int, ...]
    not_run: tuple[str, ...]  # what is absent, and why
    quick: bool
    passes: int  # how often each group is measured, each time in another process
    seconds: float  # for the rounds of a contender in a pass
    deadline: float  # seconds after which a pass ends, but for the first one

    def jobs(self, cache: str) -> Iterator[tuple[int, Job]]:
        """Yield (pass, job)."""
        for number in range(1, self.passes + 1):
            for threads in self.threads:
                groups = tuple(g for g in self.groups if g.thorough or threads == max(self.threads))
                if groups:
                    yield number, Job(groups, self.targets, threads, self.seconds, cache)


def perform(
    schedule: Schedule,
    step: Step,
    finished: Callable[[], dict[str, Any]],
    verdicts: Sequence[Verdict],
) -> Result:
    """Measure; ``step`` is told what comes next, how many groups are done, and of how many.

    ``finished`` is of `environment.begin`, and ``verdicts`` those of a study before.
    """
    rows = list[Row]()
    with tempfile.TemporaryDirectory(prefix="invconv-") as cache:
        jobs = list(schedule.jobs(cache))
        passes = _measure(schedule, jobs, rows, step)
    rows = merged(rows)
    return Result(
        **finished(),
        command=schedule.command,
        complete={number for number, _ in jobs} & {1} <= passes,
        quick=schedule.quick,
        passes=max({1} | passes),
        not_run=list(schedule.not_run),
        rows=rows,
        limits=[*verdicts, *limits.verdicts(rows)],
    )


def _measure(
    schedule: Schedule, jobs: Sequence[tuple[int, Job]], rows: list[Row], step: Step
) -> set[int]:
    """Run the jobs until the user stops it or time is up; return the passes that were completed."""
    start, over = time.monotonic(), 0
    total, done = sum(len(job.groups) for _, job in jobs), 0
    try:
        for number, job in jobs:
            step(_words(number, job, job.groups[0]), done, total)
            with contextlib.closing(run(job)) as measured:
                for group, more in measured:
                    rows += more
                    done += 1
                    step(_words(number, job, group), done, total)
                    if number > 1 and time.monotonic() - start > schedule.deadline:
                        raise TimeoutError
            over += 1
    except (KeyboardInterrupt, TimeoutError):
        step("stopping", done, total)
    return {number for number, _ in jobs} - {number for number, _ in jobs[over:]}


def _words(number: int, job: Job, group: Group) -> str:
    return f"pass {number}, {job.threads} thr: {group.title}"
