"""Recursive filters and deblurring beside the libraries that people use for them.

`lfilter` of butter(4) on 441,000 float64 samples stands beside `scipy.signal.lfilter` and
`torchaudio.functional.lfilter`; `least_squares` beside `skimage.restoration.wiener`, on an image
that is blurred with what is beyond its frame, and noise of a grey level. Calls take turns on one
thread, each after a call of its own that does not count; the medians count.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
from rich.console import Console
from skimage.data import moon
from skimage.restoration import unsupervised_wiener, wiener

import invconv as ic
from invconv_benchmarks.measure import spread, timing
from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.results.limits import Verdict, judged

_SAMPLES, _ROUNDS = 441_000, 30
_FRAME = slice(100, 356), slice(60, 316)
_WIDTHS, _NOISE = (1.5, 4.0), 1 / 255  # of the blurs, in pixels, and the noise
_BALANCES = np.logspace(-3, 3, 25)  # of Wiener's filter, of which the best one counts
_OURS, _LIMIT = ("NumPy", "PyTorch", "JAX"), 1.0  # of our time, or our error, ÷ the peer's


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge times of filters, and times and errors of deblurring."""
    rounds, threads = _ROUNDS // 3 if quick else _ROUNDS, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        blurs = (verdict for width in _WIDTHS for verdict in _deblurring(width, rounds))
        return [*_filters(rounds), *blurs], {}
    finally:
        torch.set_num_threads(threads)


def _module(name: str) -> Any:
    """Return a module, or None, with a printed sentence, where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a wheel for CUDA beside PyTorch without it
        Console().print(f"not run: {name} cannot be imported ({error})", highlight=False)
        return None


def _filters(rounds: int) -> Iterator[Verdict]:
    arrays = *scipy.signal.butter(4, 0.2), np.random.default_rng(0).standard_normal(_SAMPLES)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    forwards: dict[str, Call] = {
        "scipy.signal": partial(scipy.signal.lfilter, *arrays),
        "NumPy": partial(ic.lfilter, *arrays),
        "PyTorch": torch.no_grad()(partial(ic.lfilter, *tensors)),
    }
    gradients: dict[str, Call] = {"PyTorch": partial(_gradient, ic.lfilter, tensors)}
    if audio := _module("torchaudio.functional"):

        def theirs(b: Any, a: Any, x: Any) -> Any:
            return audio.lfilter(x, a, b, clamp=False)

        forwards["torchaudio"] = torch.no_grad()(partial(theirs, *tensors))
        gradients["torchaudio"] = partial(_gradient, theirs, tensors)
    if jax := _module("jax"):
        jax.config.update("jax_enable_x64", True)
        given, run = tuple(map(jax.numpy.asarray, arrays)), jax.jit(ic.lfilter)
        pull = jax.jit(jax.grad(lambda *g: (ic.lfilter(*g) ** 2).sum(), argnums=(0, 1, 2)))
        forwards["JAX"] = lambda: jax.block_until_ready(run(*given))
        gradients["JAX"] = lambda: jax.block_until_ready(pull(*given))
    yield from _judged("lfilter", forwards, rounds)
    yield from _judged("gradient of lfilter by b, a and x", gradients, rounds)


def _gradient(run: Callable[..., Any], tensors: list[torch.Tensor]) -> Any:
    return torch.autograd.grad(run(*tensors).square().sum(), tensors)


def _judged(name: str, calls: dict[str, Call], rounds: int) -> Iterator[Verdict]:
    times = timing.samples(calls, rounds, warm=np.inf)
    theirs = [who for who in calls if who not in _OURS]
    for us, them in ((us, them) for us in calls if us in _OURS for them in theirs):
        both = [1e3 * float(np.median(times[who])) for who in (us, them)]
        what = f"{us} {both[0]:.3g} ms, {them} {both[1]:.3g} ms"
        yield judged(f"{name}, time / peer", what, spread.ratio([times[us]], [times[them]]), _LIMIT)


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
    yield from _judged(f"deblurring, width {width:g}", calls, rounds)
