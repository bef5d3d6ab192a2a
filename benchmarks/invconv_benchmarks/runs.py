"""The schedule of a run: passes of worker processes, until time is up or the user stops it.

A worker process measures. Its threads are limited before a library is loaded. On a CUDA device
PyTorch measures captured graphs, too, which have not yet run on a GPU.
"""

import contextlib
import functools
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders import operators
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.timing import Contender, Timing, set_threads
from invconv_benchmarks.results.result import Result, Row, Verdict, merged, row_of, verdicts_of
from invconv_benchmarks.suites import ALTERNATING, Group
from invconv_conformance.libraries import KNOWN, Target, settings

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """The work of one worker process."""

    groups: tuple[Group, ...]
    targets: tuple[tuple[str, str], ...]  # libraries and devices
    threads: int
    seconds: float  # for the rounds of a contender
    cache: str = ""  # the folder in which JAX keeps compiled code for the next pass


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
        most = max(schedule.threads)
        jobs = [
            (number, Job(groups, schedule.targets, threads, schedule.seconds, cache))
            for number in range(1, schedule.passes + 1)
            for threads in schedule.threads
            if (groups := tuple(g for g in schedule.groups if g.thorough or threads == most))
        ]
        passes = _run_all(schedule, jobs, rows, step)
    rows = merged(rows)
    return Result(
        **finished(),
        command=schedule.command,
        complete={number for number, _ in jobs} & {1} <= passes,
        quick=schedule.quick,
        passes=max({1} | passes),
        not_run=list(schedule.not_run),
        rows=rows,
        limits=[*verdicts, *verdicts_of(rows)],
    )


def _run_all(
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


def run(job: Job) -> Generator[tuple[Group, list[Row]]]:
    """Yield each group with the rows that a worker process measures.

    The group of a process that dies gets an error, and a new process goes on with the rest.
    """
    variables = settings(job.threads, job.cache)
    left = list(job.groups)
    while left:
        with environment.pool(1, variables, begin, job.targets, job.threads) as worker:
            try:
                while left:
                    rows = worker.submit(_measure, left[0], job.threads, job.seconds).result()
                    yield left.pop(0), rows
            except BrokenProcessPool:
                group = left.pop(0)
                yield group, [row_of(group, None, job.threads, error="the process died")]


_targets: list[Target] = []


def begin(names: Sequence[tuple[str, str]], threads: int) -> None:
    """Begin a worker process: its targets, full precision and so many threads."""
    # Ctrl-C ends this process; the parent keeps earlier results
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    _targets[:] = targets_of(names)
    for target in _targets:
        full_precision(target)
        set_threads(target.library.name, threads)
    threadpool_limits(threads)


def targets_of(names: Sequence[tuple[str, str]]) -> list[Target]:
    """Return the targets of (library, device) names, compiled where the library compiles.

    Those that can capture graphs come a second time, in mode "graph".
    """
    targets = []
    for name, device in names:
        library = KNOWN[name]
        library.devices()  # this enables float64 in JAX
        targets.append(Target(library, device, library.usual_mode))
    captured = [GraphTarget(t.library, t.device, "graph") for t in targets if t.on_cuda]
    return [*targets, *(t for t in captured if t.library.name == "torch")]


def _contenders(group: Group) -> list[Contender]:
    ways = [operators.ours, *[operators.plain, operators.peers] * (not group.axis)]
    if group.suite in ("threads", "checks"):
        ways = [getattr(operators, group.suite)]
    elif group.suite == "overhead":
        from invconv_benchmarks.contenders import layers  # which imports PyTorch

        ways = [layers.contenders]
    setups = [operators.Setup(group, target) for target in _targets]
    return [contender for setup in setups for way in ways for contender in way(setup)]


def _measure(group: Group, threads: int, seconds: float) -> list[Row]:
    alternating = group.suite in ALTERNATING
    timings = timing.measure(_contenders(group), seconds, alternating=alternating)
    return [_row(group, threads, one) for one in timings]


def _row(group: Group, threads: int, timed: Timing) -> Row:
    contender = timed.contender
    samples = [float(f"{s:.5g}") for s in timed.samples]
    known: dict[str, Any] = {n: getattr(timed, n) for n in ("plan", "first", "calls", "error")}
    if contender.does == "inverse" and samples and not group.axis:
        solution = to_numpy(timed.result)
        known["residual"] = operators.Setup(group, contender.target).residual(solution)
    return row_of(group, contender, threads, passes=[samples], **known)


@dataclass(frozen=True)
class GraphTarget(Target):
    """A CUDA device whose calls are captured once in a graph and replayed."""

    def compile(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that replays what ``function`` did with its first argument."""
        captured = functools.cache(functools.partial(_torch_graph, function))
        return lambda x: captured(x)()


def full_precision(target: Target) -> None:
    """Make a library multiply float32 at full precision in peers too, as ours always does."""
    if target.library.name == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    elif target.library.name == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")


def _torch_graph(function: Callable[[Any], Any], x: Any) -> Callable[[], Any]:
    import torch

    with torch.cuda.device(x.device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function(x)  # make plans and workspaces outside of the graph
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(x)

    def replay() -> Any:
        graph.replay()
        return result

    return replay
