"""Operators near the threshold on large grids, with turned signs, of tiny scales and half types.

How wrong their inverses are is told by images that a user may have, and no judgement has a part in
it: x' = inverse(forward(x)), and x' of random y beside float64's x, where that is itself right.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv_benchmarks.report.figures import Floats
from invconv_benchmarks.studies import operators
from invconv_benchmarks.studies.operators import Construction, Grows, Rng

_FEWEST = 1.8e5  # numbers of a large grid
_HALVINGS, _NEAR = 26, 0.3  # and digits from those wanted that are near enough
_RIGHT = 1e-4  # residual of float64's solution that is a truth for float32


def images(sample: Shape, rng: Rng) -> Iterator[Floats]:
    """Yield images (C, *spatial), most like what users have, and with signs that alternate."""
    noise, sign = rng.standard_normal(sample), rng.random(sample)
    grey = rng.uniform(0.5, 1, (sample[0], *(1 for _ in sample[1:]))) * np.ones(sample)
    places = np.indices(sample, sparse=True)
    board, stripes = (-1.0) ** sum(places[1:]), (-1.0) ** places[0]
    waves = (np.cos(rng.uniform(0, 6) + 6 * p / p.size) for p in places[1:])
    smooth = 2 + grey * math.prod(waves) + noise / 100
    yield from (noise, grey, np.full(sample, 0.7), sign, smooth)
    yield from (grey * board, grey * stripes, grey * board * stripes, sign * board, sign * stripes)


def error(conv: ic.InvertibleConv, shape: Shape, rng: Rng, few: bool = False) -> float:
    """Return the largest error over images in the precision of an operator's arrays."""
    like = conv._reference()[1]
    there, single = _maker(like), str(like.dtype) == "float32"
    prepared, worst, sample = conv.prepare(shape, check=False), 0.0, (conv.channels, *shape)
    for x in itertools.islice(images(sample, rng), 2 if few else None):
        given = there(x[None])
        worst = max(worst, _off(prepared.inverse(conv.forward(given)), given))
    if str(like.dtype) not in ("float32", "float64"):
        return worst
    wide = conv.asarrays(np.empty(0))
    exact = wide.prepare(shape, check=False)
    y = np.asarray(rng.standard_normal((1, *sample)), like.dtype)
    x = exact.inverse(y.astype(np.float64))
    scale = 2.0 ** -np.floor(np.log2(np.abs(x).max()))
    if not 1e-30 < scale < 1e30:
        return worst
    y, x = (y * scale).astype(y.dtype), x * scale
    if not single:  # the image of it, as a user would have it
        return max(worst, _off(prepared.inverse(conv.forward(x)), x))
    x = exact.inverse(y.astype(np.float64))
    residual = wide.forward(x) - y
    right = np.abs(exact.inverse(residual)).max() <= _RIGHT * np.abs(x).max()
    return max(worst, _off(prepared.inverse(y), x)) if right else worst


def _maker(like: Any) -> Callable[[Floats], Any]:
    if isinstance(like, np.ndarray):
        return lambda x: x.astype(like.dtype)
    import torch

    return lambda x: torch.as_tensor(x).to(like.dtype)


def _off(found: Any, right: Any) -> float:
    found, right = (a if isinstance(a, np.ndarray) else a.double().numpy() for a in (found, right))
    off = np.abs(found.astype(np.float64) - right).max() / np.abs(right.astype(np.float64)).max()
    return float(off) if np.isfinite(off) else math.inf


def near(grows: Grows, shape: Shape, like: Any, rng: Rng, span: Any = (0.3, 4.5)) -> Any:
    """Return an operator in a precision, moved until few digits are left on images."""
    wanted, low, high = -rng.uniform(*span), -6.0, 17.0
    conv = None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(all="ignore"):
            try:
                conv = grows(10.0**middle).asarrays(like)
                found = math.log10(error(conv, shape, rng, few=True) or 1e-20)
            except (ic.SingularConvError, np.linalg.LinAlgError, ValueError, OverflowError):
                found = math.inf
        if abs(found - wanted) < _NEAR:
            break
        low, high = (middle, high) if found < wanted else (low, middle)
    return conv


def large(count: int, seed: int) -> Iterator[Construction]:
    """Yield operators on grids of 2e5 to 1e6 numbers, in float32 and float64 by turns."""
    for i, rng in enumerate(np.random.default_rng([seed, 10]).spawn(count)):
        name = list(_KINDS)[i % len(_KINDS)]
        channels, ndim = int(rng.choice([1, 1, 2, 3, 8])), int(rng.integers(1, 4))
        pixels = 10 ** rng.uniform(math.log10(_FEWEST) + 0.1, 6) / channels
        shares = rng.dirichlet(np.full(ndim, 3.0))
        shape = tuple(6 * math.ceil(pixels**share / 6) for share in shares)
        conv = near(_KINDS[name](rng, channels, shape), shape, _like(i // len(_KINDS)), rng)
        yield "large grids", conv, shape


def _like(number: int) -> Floats:
    return np.empty(0, ("float32", "float64")[number % 2])


def _neighbours(rng: Rng, channels: int, shape: Shape) -> Grows:
    """Return x1 - g x0 along an axis, in any direction, g about 1."""
    axis, ndim = int(rng.integers(len(shape))), len(shape)
    kernel = np.zeros((channels, channels, *(1 + (a == axis) for a in range(ndim))))
    kernel.reshape(channels, channels, -1)[..., 0] = np.eye(channels)
    last, turns = np.zeros_like(kernel), np.linalg.qr(rng.standard_normal((channels, channels)))[0]
    last.reshape(channels, channels, -1)[..., 1] = turns if rng.random() < 0.5 else np.eye(channels)
    corner = tuple(int(d) for d in rng.choice([-1, 1], ndim))
    return lambda s: ic.AutoregressiveConv(
        kernel - last * (1 + math.log10(1 + s) / shape[axis]), direction=corner
    )


def _corners(rng: Rng, channels: int, shape: Shape) -> Any:
    corner = tuple(int(d) for d in rng.choice([-1, 1], len(shape)))
    moving = operators._moving(ic.AutoregressiveConv, direction=corner)
    return moving(rng, channels, shape)


def _closed(rng: Rng, channels: int, shape: Shape) -> Any:
    """Return a small periodic kernel that nearly loses a frequency of the large grid."""
    return operators._losing(grey=rng.random() < 0.5)(rng, channels, (3,) * len(shape))


def _bordered(rng: Rng, channels: int, shape: Shape) -> Any:
    borders = tuple(map(str, rng.choice(["symmetric", "mirror", "odd", "periodic"], len(shape))))
    return operators._moving(ic.SymmetricConv, boundary=borders)(rng, channels, shape)


def _chained(rng: Rng, channels: int, shape: Shape) -> Grows:
    bad = (_neighbours, _corners, _closed)[int(rng.integers(3))](rng, channels, shape)
    other = operators._step(rng, channels, ndim=len(shape))
    return lambda s: ic.Chain([other, bad(s)] if channels % 2 else [bad(s), other])


_KINDS: dict[str, Callable[[Rng, int, Shape], Grows]] = {
    "neighbours": _neighbours,
    "corner": _corners,
    "periodic": _closed,
    "neighbours again": _neighbours,
    "symmetric": _bordered,
    "chain": _chained,
    "raster": operators._moving(ic.AutoregressiveConv, mask="raster"),
    **{n: operators._NEAR[n] for n in ("EmergingConv", "ExponentialConv")},
    **{n: operators._NEAR[f"ExponentialConv, {n}"] for n in ("positive", "circular")},
}


def signs(count: int, seed: int) -> Iterator[Construction]:
    """Yield D K D for operators of each kind near the threshold, D = 1 and -1 by turns."""
    for i, rng in enumerate(np.random.default_rng([seed, 11]).spawn(count)):
        name = [*_KINDS, "sharpening"][i % (len(_KINDS) + 1)]
        channels, ndim = int(rng.choice([1, 2, 4, 8])), int(rng.integers(1, 4))
        shape = tuple(2 * int(n) for n in rng.integers(3, 9 - ndim, ndim) * (1 + (ndim == 1) * 9))
        draw = _sharpening if name == "sharpening" else _KINDS[name]
        conv = near(draw(rng, channels, shape), shape, _like(i // (len(_KINDS) + 1)), rng)
        by_channel = rng.choice([-1.0, 1.0], channels)
        yield "alternating signs", turned(conv, by_channel, rng.random(ndim) < 0.7), shape


def _sharpening(rng: Rng, channels: int, shape: Shape) -> Grows:
    kernel = rng.random((channels, channels, *(3,) * len(shape)))
    kernel /= kernel.sum(axis=(1, *range(2, kernel.ndim))).max()
    middle: Any = (..., *(1,) * len(shape))
    one = np.zeros_like(kernel)
    one[middle] = np.eye(channels)
    many = int(rng.integers(2, 7))
    return lambda s: ic.Chain([ic.PeriodicConv(one - kernel * s / (1 + s))] * many)


def turned(conv: Any, by_channel: Floats, axes: Any) -> Any:
    """Return D K D, D = ±1 by channel times a checkerboard of some axes, without a bias."""
    if isinstance(conv, ic.Chain):
        return ic.Chain([turned(step, by_channel, axes) for step in conv.steps])
    if isinstance(conv, ic.EmergingConv):
        pair = (turned(one, by_channel, axes) for one in (conv.first, conv.second))
        return ic.EmergingConv(*pair)
    by_pair = np.outer(by_channel, by_channel)
    if not hasattr(conv, "kernel"):
        return _of_matrix(conv, by_pair)
    axes = [
        a and b != "odd" and b != "symmetric"  # whose wall a checkerboard turns into the other
        for a, b in zip(axes, getattr(conv, "boundary", ("",) * len(axes)), strict=True)
    ]
    places = np.indices(conv.kernel.shape[2:], sparse=True)
    centres = _centres(conv, conv.kernel.shape[2:])
    dilations = np.broadcast_to(getattr(conv, "dilation", 1), len(axes))
    steps = [(p - c) * d * a for p, c, d, a in zip(places, centres, dilations, axes, strict=True)]
    factor = (-1.0) ** sum(steps) * np.ones(conv.kernel.shape[2:])
    kernel = conv.kernel * np.multiply.outer(by_pair, factor).astype(conv.kernel.dtype)
    return conv.replace(kernel=kernel, bias=None)


def _of_matrix(conv: Any, by_pair: Floats) -> Any:
    unit = np.eye(conv.channels).reshape(conv.channels, conv.channels, *(1,) * conv.ndim)
    matrix = conv.replace(bias=None).asarrays(np.empty(0)).forward(unit)
    matrix = matrix.reshape(by_pair.shape).T * by_pair
    return ic.Conv1x1(matrix, ndim=conv.ndim).asarrays(conv._reference()[1][:0])


def _centres(conv: Any, taps: Shape) -> list[int]:
    if isinstance(conv, ic.AutoregressiveConv):
        return list(conv._centre)
    borders = getattr(conv, "boundary", ("periodic",) * len(taps))
    return [(k - 1) // 2 if b == "periodic" else 0 for k, b in zip(taps, borders, strict=True)]


def underflowing(count: int, seed: int) -> Iterator[Construction]:
    """Yield chains of steps whose scales undo each other beyond the range of numbers."""
    for i, rng in enumerate(np.random.default_rng([seed, 12]).spawn(count)):
        channels, shape = int(rng.integers(1, 4)), (int(rng.integers(2, 20)),)
        most = 30 if i % 2 == 0 else 250  # of 10 as a scale
        powers = rng.uniform(most / 3, most, int(rng.integers(1, 4)))
        steps: list[ic.InvertibleConv] = []
        for power in rng.permutation([*powers, *-powers]):
            one = ic.AutoregressiveConv.init(channels, ndim=1, rng=rng)
            other = ic.Conv1x1.init(channels, ndim=1, rng=rng)
            scale = 10.0**power
            step: Any = one.replace(kernel=one.kernel * scale)
            step = step if rng.random() < 0.7 else other.replace(weight=other.weight * scale)
            steps.append(step)
        yield "underflow", ic.Chain(steps).asarrays(_like(i)), shape


def halves(count: int, seed: int) -> Iterator[Construction]:
    """Yield operators in NumPy's float16 and PyTorch's bfloat16 by turns."""
    import torch

    for i, rng in enumerate(np.random.default_rng([seed, 13]).spawn(count)):
        like: Any = np.empty(0, "float16") if i % 2 else torch.empty(0, dtype=torch.bfloat16)
        name = list(_KINDS)[i // 2 % len(_KINDS)]
        channels, shape = int(rng.integers(1, 4)), ((24,), (12, 18))[int(rng.integers(2))]
        conv = near(_KINDS[name](rng, channels, shape), shape, like, rng, (-1.0, 2.5))
        yield "half types", conv, shape


Stream = tuple[ic.AutoregressiveConv, int, int, Shape]  # the length of a block, blocks, other axes


def streams(count: int, seed: int) -> Iterator[Stream]:
    """Yield what is inverted block by block: half grow by 1.005 to 1.1 a pixel, half fade."""
    for i, rng in enumerate(np.random.default_rng([seed, 14]).spawn(count)):
        channels, length = int(rng.integers(1, 4)), int(rng.integers(64, 401))
        rate = 1 + 10 ** rng.uniform(-2.3, -1) if i % 4 < 2 else 1 - 10 ** rng.uniform(-3, -0.5)
        more = (int(rng.integers(2, 9)),) if rng.random() < 0.3 else ()
        kernel = np.zeros((channels, channels, 2, *(1 for _ in more)))
        turns = np.linalg.qr(rng.standard_normal((channels, channels)))[0]
        kernel.reshape(channels, channels, 2)[...] = np.stack([np.eye(channels), -rate * turns], -1)
        direction = int(rng.choice([-1, 1]))
        conv = ic.AutoregressiveConv(kernel, direction=direction).asarrays(_like(i))
        digits = 7.5 if i % 2 == 0 else 16.0
        samples = rng.uniform(0.85, 1.3) * digits / math.log10(rate) if rate > 1 else 20 * length
        yield conv, length, max(2, math.ceil(samples / length)), more


def run_stream(stream: Stream, rng: Rng) -> float:
    """Return the largest error of noise that is inverted block by block."""
    conv, length, blocks, more = stream
    ahead = np.broadcast_to(conv.direction, 1 + len(more))[0] < 0
    x = rng.standard_normal((conv.channels, length * blocks, *more)).astype(conv.kernel.dtype)
    y, found = conv.forward(x[None])[0], np.zeros_like(x)
    before = np.zeros((conv.channels, 1, *more), x.dtype)
    for block in range(blocks)[:: -1 if ahead else 1]:
        part = slice(block * length, (block + 1) * length)
        found[:, part] = conv.inverse(y[None, :, part], before=before[None])[0]
        before = found[:, part][:, :1] if ahead else found[:, part][:, -1:]
    return _off(found, x)
