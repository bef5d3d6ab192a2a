"""Recursive filters and deblurring beside the libraries that people use for them.

Images are blurred with what is beyond their frame. Calls take turns on one thread, each after a
call of its own that does not count; the medians count, of the processor's time, which other work on
the machine does not lengthen.
"""

import importlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from rich.console import Console
from skimage.data import moon
from skimage.restoration import unsupervised_wiener, wiener
from threadpoolctl import threadpool_limits

import invconv as ic
from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.timing import Call
from invconv_benchmarks.results.result import Verdict, judged
from invconv_benchmarks.suites import as_text

_ROUNDS = 30
_LIMITS = {  # of our time ÷ SciPy's by the signals' shape: lfilter, sosfilt, both with a state
    (512,): (4, 3, 4, 4),
    (2, 512): (4, 3, 4, 4),
    (44_100,): (0.8,) * 4,
    (2, 44_100): (0.8,) * 4,
    (1_000_000,): (0.7,) * 4,
    (8, 100_000): (0.5,) * 4,
    (64, 16_000): (0.5,) * 4,
}
_SMALL = 8.0  # of PyTorch's, for 512 samples
_EACH = 64, 1000, 1.0  # filters, samples of each, and the limit beside a loop over SciPy's
_GRADIENT = (8, 100_000), 0.5  # signals, and the limit beside torchaudio's
_ROWS, _CORNER = ((-1, -1), (-1, 0), (-1, 1)), ((-1, 0), (0, -1))
_RECURSIONS = {  # images, offsets, and the limit of NumPy's time beside a sum over taps in PyTorch
    (1, 64, 64, 64): (_ROWS, 0.8),
    (8, 32, 32, 32): (_ROWS, 0.8),
    (1, 8, 512, 512): (_ROWS, 0.4),
    (1, 1, 1024, 1024): (_CORNER, 1.2),
    (4, 96, 14, 14): (_CORNER, 2.5),
}
_BESIDE, _STEP = 1.4, 6.0  # PyTorch's and JAX's limits, and a step's beside a forward
_FRAME = slice(100, 356), slice(60, 316)
_WIDTHS, _NOISE = (1.5, 4.0), 1 / 255  # of the blurs, in pixels, and the noise
_BALANCES = np.logspace(-3, 3, 25)  # of Wiener's filter, of which the best one counts
_OURS, _LIMIT = ("NumPy", "PyTorch", "JAX"), 1.0  # of our time, or our error, ÷ the peer's
_KINDS = (np.float64, np.float32)


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge times of filters, and times and errors of deblurring."""
    rounds = _ROUNDS // 3 if quick else _ROUNDS
    with threadpool_limits(1):
        blurs = (verdict for width in _WIDTHS for verdict in _deblurring(width, rounds))
        functions = _filters(rounds), _splines(rounds), _recursions(rounds)
        return [*itertools.chain(*functions), *blurs], {}


def _filters(rounds: int) -> Iterator[Verdict]:
    (b, a), sos = scipy.signal.butter(4, 0.2), scipy.signal.butter(8, 0.2, output="sos")
    rng = np.random.default_rng(0)
    for (shape, limits), kind in itertools.product(_LIMITS.items(), _KINDS):
        x = rng.standard_normal(shape).astype(kind)
        alone, states = np.zeros((*shape[:-1], 4), kind), np.zeros((4, *shape[:-1], 2), kind)
        given = [v.astype(kind) for v in (b, a)], [sos.astype(kind)]
        for n, limit in enumerate(limits):
            name, numbers = ("lfilter", "sosfilt")[n % 2], given[n % 2]
            more = {"zi": (alone, states)[n % 2]} if n > 1 else {}
            calls: dict[str, Call] = {
                "scipy.signal": partial(getattr(scipy.signal, name), *numbers, x, **more),
                "NumPy": partial(getattr(ic, name), *numbers, x, **more),
            }
            if n == 0 and shape == (512,):
                tensors = [torch.as_tensor(v) for v in (*numbers, x)]
                calls["PyTorch"] = partial(ic.lfilter, *tensors)
            title = f"{name} {'with zi ' * (n > 1)}of {as_text(shape)} samples, {x.dtype}"
            yield from _judged(title, calls, rounds, {"NumPy": limit, "PyTorch": _SMALL})
    for kind in _KINDS:
        yield from _of_many(rounds, kind)


def _of_many(rounds: int, kind: Any) -> Iterator[Verdict]:
    """Judge a filter for each signal, and gradients."""
    rng, (count, length, limit) = np.random.default_rng(0), _EACH
    designs = [scipy.signal.butter(2, 0.1 + 0.01 * n) for n in range(count)]
    b, a = (np.stack(numbers).astype(kind) for numbers in zip(*designs, strict=True))
    x = rng.standard_normal((count, length)).astype(kind)

    calls: dict[str, Call] = {"NumPy": partial(ic.lfilter, b, a, x)}
    calls["a loop over scipy.signal"] = lambda: list(map(scipy.signal.lfilter, b, a, x))
    title = f"{count} filters of {length} samples, {x.dtype}"
    yield from _judged(title, calls, rounds, {"NumPy": limit})
    shape, limit = _GRADIENT
    arrays = *scipy.signal.butter(4, 0.2), rng.standard_normal(shape)
    tensors = [torch.tensor(v.astype(kind), requires_grad=True) for v in arrays]
    calls = {"PyTorch": partial(_gradient, ic.lfilter, tensors)}
    try:
        audio: Any = importlib.import_module("torchaudio.functional")
    except (ImportError, OSError) as error:  # OSError: a wheel for CUDA beside PyTorch without it
        Console().print(f"not run: torchaudio cannot be imported ({error})", highlight=False)
    else:

        def theirs(b: Any, a: Any, x: Any) -> Any:
            return audio.lfilter(x, a, b, clamp=False)

        calls["torchaudio"] = partial(_gradient, theirs, tensors)
    title = f"gradient of lfilter by b, a and x, {as_text(shape)} samples, {x.dtype}"
    yield from _judged(title, calls, rounds, {"PyTorch": limit})


def _splines(rounds: int) -> Iterator[Verdict]:
    for dtype, limit in (("float32", 0.8), ("float64", 1.1)):
        x = np.random.default_rng(0).standard_normal((1024, 1024)).astype(dtype)
        ours, theirs = ic.spline_filter, partial(scipy.ndimage.spline_filter, output=dtype)
        calls: dict[str, Call] = {"NumPy": partial(ours, x), "scipy.ndimage": partial(theirs, x)}
        yield from _judged(f"spline_filter, {dtype}", calls, rounds, {"NumPy": limit})


def _recursions(rounds: int) -> Iterator[Verdict]:
    """Judge `propagate` beside the sum over taps alone, and beside a loop over rows, in PyTorch."""
    rng, run = np.random.default_rng(0), jax.jit(ic.propagate, static_argnums=2)
    for shape, (offsets, limit) in _RECURSIONS.items():
        x = rng.standard_normal(shape).astype(np.float32)
        taps = rng.random((*shape[:2], len(offsets), *shape[2:])).astype(np.float32) / len(offsets)
        tensors = torch.tensor(x), torch.tensor(taps)
        ours: dict[str, Call] = {
            "NumPy": partial(ic.propagate, x, taps, offsets),
            "PyTorch": partial(ic.propagate, tensors[0], tensors[1], offsets),
            "JAX": partial(_finished, run, jax.numpy.asarray(x), jax.numpy.asarray(taps), offsets),
        }
        limits = {us: limit * (1 if us == "NumPy" else _BESIDE) for us in ours}
        title = f"propagate {as_text(shape)}, {len(offsets)} taps"
        calls: dict[str, Call] = {"sum": partial(_sum, *tensors)}
        yield from _judged(title, ours | calls, rounds, limits)
        if offsets is _ROWS:
            calls = {"loop over rows": partial(_by_rows, *tensors)}
            yield from _judged(title, ours | calls, rounds, dict.fromkeys(ours, _LIMIT))
        calls = {"PyTorch": partial(_step, *tensors, offsets), "forward": ours["PyTorch"]}
        yield from _judged(f"step of {title}", calls, rounds, {"PyTorch": _STEP})


def _finished(run: Callable[..., Any], *given: Any) -> Any:
    return run(*given).block_until_ready()


def _sum(x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Return what reads as much, without a recursion."""
    return (taps * x[:, :, None]).sum(2)


def _step(x: torch.Tensor, taps: torch.Tensor, offsets: Any) -> Any:
    leaves = [v.detach().requires_grad_() for v in (x, taps)]
    return torch.autograd.grad(ic.propagate(leaves[0], leaves[1], offsets), leaves, x)


def _by_rows(x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Return the recursion over rows as it is published: row after row."""
    h = x.clone()
    for i in range(1, x.shape[2]):
        above, now = h[:, :, i - 1], h[:, :, i]
        now += taps[:, :, 1, i] * above
        now[..., 1:] += taps[:, :, 0, i, 1:] * above[..., :-1]
        now[..., :-1] += taps[:, :, 2, i, :-1] * above[..., 1:]
    return h


def _gradient(run: Callable[..., Any], tensors: list[torch.Tensor]) -> Any:
    return torch.autograd.grad(run(*tensors).square().sum(), tensors)


def _judged(
    name: str, calls: dict[str, Call], rounds: int, limits: Mapping[str, float]
) -> Iterator[Verdict]:
    """Judge each of our times by the peers'; libraries without a limit have none."""
    times = timing.samples(calls, rounds, warm=math.inf, clock=time.process_time)
    theirs = [who for who in calls if who not in _OURS]
    for us, them in ((us, them) for us in calls if us in _OURS for them in theirs):
        both = [1e3 * float(np.median(times[who])) for who in (us, them)]
        what = f"{us} {both[0]:.3g} ms, {them} {both[1]:.3g} ms"
        ratio = timing.ratio([times[us]], [times[them]])
        yield judged(f"{name}, time / peer", what, ratio, limits[us])


def _deblurring(width: float, rounds: int) -> Iterator[Verdict]:
    row, column = np.mgrid[-12:13, -12:13]
    psf = (1 + (row**2 + column**2) / width**2) ** -3.0  # Moffat's, of a telescope
    psf /= psf.sum()
    blur, whole = ic.from_psf(psf), moon() / 255
    y = blur.forward(whole[None])[:, *_FRAME]
    y = y + _NOISE * np.random.default_rng(0).standard_normal(y.shape)
    mean = y.mean()  # of all pixels alike: no filter has to find it
    y, sharp = y - mean, whole[_FRAME] - mean
    ours = partial(blur.least_squares, y, ic.damp_for_noise(blur, y, _NOISE))

    def error(x: Any) -> float:
        return float(np.sqrt(np.mean((x - sharp) ** 2)))

    best = min(_BALANCES, key=lambda balance: error(wiener(y[0], psf, balance)))
    calls: dict[str, Call] = {"NumPy": ours, "wiener": partial(wiener, y[0], psf, best)}
    itself = unsupervised_wiener(y[0], psf, rng=0)[0]
    peers = {"wiener, best of 25": calls["wiener"](), "unsupervised_wiener": itself, "blurred": y}
    for theirs, x in peers.items():
        what = f"width {width:g}: {error(ours()):.2g} by damp_for_noise, {theirs} {error(x):.2g}"
        yield judged("deblurring, error / peer", what, error(ours()) / error(x), _LIMIT)
    yield from _judged(f"deblurring, width {width:g}", calls, rounds, {"NumPy": _LIMIT})
