"""The compiled kernel's choices between ways, beside the time of each way: this fits `cpu.costs`.

Every way of a call is forced and timed, one thread, float32. Two kinds of limits follow: how much
slower the chosen way is than the quickest, and for each constant how much the mean of these losses
would fall if the constant were half or twice as large.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.stats import gmean

import invconv as ic
from invconv.kernels import numpy_primitives
from invconv.kernels.cpu import assembly, compiled, costs
from invconv.kernels.cpu.compiled import CompiledSolve, compiled_solve
from invconv.kernels.cpu.correlate import correlation
from invconv.kernels.cpu.program import addresses
from invconv.kernels.frequencies import spectrum
from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.timing import Call
from invconv_benchmarks.results.result import Verdict, judged

_ROUNDS, _LEAST = 7, 1e-3  # of each way, and seconds of one
_LOSS, _FIT = 1.3, 1.02  # limits
_RNG = np.random.default_rng(0)
# the constants that decide each kind of call
_CONSTANTS = {
    "solve": [("BESIDE", way) for way in costs.BESIDE],
    "correlation": [("COPY", ""), ("MULTIPLY", "")],
    "product": [("AN_FFT", ""), ("A_CALL", "")],
    "pivots": [("PIVOT_ROWS", "")],
}


@dataclass(frozen=True)
class Choice:
    """A call, the seconds that each of its ways takes, and the way that the constants choose."""

    kind: str
    what: str
    seconds: dict[str, float]
    chosen: Callable[[], str]

    @property
    def loss(self) -> float:
        """The time of the chosen way over the quickest's."""
        return self.seconds[self.chosen()] / min(self.seconds.values())


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge every choice, and every constant; with ``quick`` of every third call."""
    calls = list(_calls())[:: 3 if quick else 1]
    shown = track(calls, "timing", console=Console(stderr=True), transient=True)
    choices = [make() for make in shown]
    lines = [judged(f"{c.kind}: chosen way / quickest", c.what, c.loss, _LOSS) for c in choices]
    for kind, constants in _CONSTANTS.items():
        of_kind = [c for c in choices if c.kind == kind]
        for name, key in constants if of_kind else []:
            now, *others = (_mean_loss(of_kind, name, key, by) for by in (1.0, 0.5, 2.0))
            what = f"{name} {key}: mean loss {now:.3f}; half {others[0]:.3f}, twice {others[1]:.3f}"
            fit = now / min(now, *others)
            lines.append(judged("a constant / the best of half, it, twice", what, fit, _FIT))
    return lines, {}


def _mean_loss(choices: list[Choice], name: str, key: str, by: float) -> float:
    where, constant = (getattr(costs, name), key) if key else (vars(costs), name)
    with mock.patch.dict(where, {constant: by * where[constant]}):
        return float(gmean([c.loss for c in choices]))


def _timed(ways: dict[str, Call], force: Callable[[str], Any]) -> dict[str, float]:
    def run(way: str, times: int) -> None:
        with force(way):
            for _ in range(times):
                ways[way]()

    for way in ways:
        run(way, 1)
    once = {way: timing.seconds(partial(run, way, 1)) for way in ways}
    times = {way: max(1, int(_LEAST / taken)) for way, taken in once.items()}
    calls = {way: partial(run, way, count) for way, count in times.items()}
    samples = timing.samples(calls, _ROUNDS)
    return {way: min(taken) / times[way] for way, taken in samples.items()}


def _calls() -> Iterator[Callable[[], Choice]]:
    grids = ((8, 8), (32, 32))
    sizes = (1, 2, 4, 8, 16, 64), (2, 3, 8, 12, 24, 48, 96)
    cases: list[tuple[int, int, tuple[int, ...]]] = list(itertools.product(*sizes, grids))
    cases += [(b, c, (4000,)) for b in (1, 4, 16) for c in (1, 4, 12, 64)]
    cases += [(1, 3, (256, 256)), (1, 12, (256, 256)), (2, 8, (8, 8, 8)), (1, 1, (64, 64))]
    for batch, channels, grid in cases:
        if batch * channels * np.prod(grid) <= 2**20:
            yield partial(_solve, batch, channels, grid)
    images = ((3, 32), (12, 16), (12, 8), (24, 8), (48, 4), (48, 16))
    for batch, (channels, n) in itertools.product((9, 12, 16, 20, 64, 100), images):
        yield partial(_correlation, batch, channels, (n, n))
    for batch, n in itertools.product((1, 4, 16, 64), (4, 8, 16, 32, 64)):
        if batch * n**2 <= 2**15:
            yield partial(_product, batch, 8, n)
    for channels, n in itertools.product((2, 4, 8, 16, 32), (8, 32)):
        yield partial(_pivots, channels, n)


def _solve(batch: int, channels: int, grid: tuple[int, ...]) -> Choice:
    c = ic.AutoregressiveConv.init(channels, 2, len(grid), rng=_RNG)._causal()
    matrices = c.taps.astype("float32")
    y = _RNG.standard_normal((batch, channels, *grid)).astype("float32")
    x = np.empty_like(y)

    def state(way: str) -> CompiledSolve:
        made = compiled_solve(matrices, c.sweep.on(grid))
        with mock.patch.object(assembly, "best_way", return_value=way):
            compiled._runs.cache_clear()
            made.run(*addresses(y, x), batch, 1)  # it keeps its program
        return made

    def chosen() -> str:
        assembly.of_ways.cache_clear()
        return assembly.best_way(geometry, batch, 1)

    geometry = compiled_solve(matrices, c.sweep.on(grid)).geometry
    states = {way: state(way) for way in assembly.of_ways(geometry, batch, 1)}
    compiled._runs.cache_clear()
    given = *addresses(y, x), batch, 1
    ways: dict[str, Call] = {way: partial(s.run, *given) for way, s in states.items()}
    what = "x".join(map(str, (batch, channels, *grid)))
    return Choice("solve", what, _timed(ways, lambda way: nullcontext()), chosen)


def _correlation(batch: int, channels: int, grid: tuple[int, ...]) -> Choice:
    x = _RNG.standard_normal((batch, channels, *grid)).astype("float32")
    conv = ic.AutoregressiveConv.init(channels, rng=_RNG, like=x)
    offsets = ((0, 0), (0, -1), (-1, 0), (-1, -1))
    given = correlation.compiled_correlation(channels, grid, offsets, None, 4)
    assert given is not None
    by_images = given.by_images
    known = {"pixels": given} | ({"images": by_images} if by_images else {})

    def force(way: str) -> Any:
        return mock.patch.object(correlation, "way_of", return_value=(known[way], 1))

    def chosen() -> str:
        return min(known, key=lambda way: known[way].seconds(batch))

    seconds = _timed(dict.fromkeys(known, partial(conv.forward, x)), force)
    what = "x".join(map(str, (batch, channels, *grid)))
    return Choice("correlation", what, seconds, chosen)


def _product(batch: int, channels: int, n: int) -> Choice:
    y = _RNG.standard_normal((batch, channels, n, n)).astype("float32")
    prepared = ic.PeriodicConv.init(channels, rng=_RNG, like=y).prepare((n, n), check=False)
    run, what = partial(prepared.inverse, y), f"{batch}x{channels}x{n}x{n}"
    given = batch, channels, (n, n), 4
    return _kernel_or("FFT", "product", what, run, (spectrum, "prefers_kernel"), given)


def _pivots(channels: int, n: int) -> Choice:
    matrices = _RNG.standard_normal((n * (n // 2 + 1), channels, channels)).astype("complex64")
    run, given = partial(numpy_primitives.log_abs_det, matrices), (len(matrices), channels)
    what = "{} of {}".format(*given)
    return _kernel_or("LAPACK", "pivots", what, run, (numpy_primitives, "prefers_lanes"), given)


def _kernel_or(
    other: str, kind: str, what: str, run: Call, decides: tuple[Any, str], given: tuple[Any, ...]
) -> Choice:
    """Return the choice between the kernel and another way, which a function of a module makes."""
    prefers = getattr(*decides)
    force = lambda way: mock.patch.object(*decides, return_value=way == "kernel")  # noqa: E731
    seconds = _timed(dict.fromkeys(("kernel", other), run), force)
    return Choice(kind, what, seconds, lambda: "kernel" if prefers(*given) else other)
