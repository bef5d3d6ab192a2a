"""How wrong an inverse is: against dense matrices of the definition, in extended precision.

    |x' - x| / |x| in the largest entries, x' = conv.inverse(y) as it runs,

for y = conv.forward(x), whose x is known, and for random y, whose x is found step by step, unless
the grid is too large for a dense matrix. A 1x1 of
factors runs in PyTorch, too, with parameters that want gradients: it is solved factor by factor.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

import invconv as ic
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv_benchmarks.report.figures import Floats
from invconv_benchmarks.suites.group import Shape
from invconv_conformance.laws.trust import warned
from invconv_conformance.truth import oracle
from invconv_conformance.truth.oracle import EXTENDED, ExtendedLU, convolve, substitute

Solve = Callable[[Floats], Floats]
PLACES = {"float32": 23, "float64": 52}  # binary
_KINDS = 3  # of samples
_SMALL = 2.0**-100  # images
_FEW, _SAMPLES, _SMALL_IMAGE = 24, 96, 2**10  # samples of large images and of small ones; numbers
_DENSE = 2**10  # numbers of an image of a dense matrix at most, but of autoregressive convolutions


def digits(error: float, dtype: str) -> float:
    """Return the decimal digits that an error leaves, between none and all of a dtype."""
    return -math.log10(min(1.0, max(error, 2.0 ** -PLACES[dtype]))) if error < 1 else 0.0


def error_of(conv: ic.InvertibleConv, shape: Shape, rng: np.random.Generator) -> float:
    """Return the largest error over samples of an operator of NumPy arrays; inf for NaN."""
    dtype = conv._reference()[1].dtype
    count = _SAMPLES if conv.channels * math.prod(shape) <= _SMALL_IMAGE else _FEW
    x, y = (_samples((count, conv.channels, *shape), rng).astype(dtype) for _ in range(2))
    with warned():  # of an inverse on the way
        images = np.asarray(conv.forward(x))
    if 0 < (size := np.abs(images).max()) < _SMALL:  # of ordinary y, x may be beyond the range
        y = (y * 2.0 ** np.floor(np.log2(size))).astype(dtype)
    truth, given = x.astype(EXTENDED), images
    if x[0].size <= _DENSE:
        right = maps(conv.asarrays(np.empty(0)), shape)[1](y.astype(EXTENDED))
        truth, given = np.concatenate([truth, right]), np.concatenate([images, y])
    ways = [conv.prepare(shape, check=False).inverse]
    if _has_factors(conv):
        ways.append(functools.partial(_recorded, conv))
    return max(_relative(way(given), truth) for way in ways)


def _has_factors(conv: ic.InvertibleConv) -> bool:
    parts = conv._parts().values()
    return isinstance(conv, ic.PLUConv1x1 | ic.QRConv1x1) or any(
        isinstance(part, ic.InvertibleConv) and _has_factors(part) for part in parts
    )


def _recorded(conv: ic.InvertibleConv, y: Floats) -> Floats:
    """Return conv.inverse(y) as it runs where derivatives are recorded."""
    import torch

    there = conv.asarrays(torch.as_tensor(y[:0]))
    wanted = {name: p.clone().requires_grad_() for name, p in there.parameters().items()}
    prepared = there.replace(**wanted).prepare(tuple(y.shape[2:]), check=False)
    return np.asarray(prepared.inverse(torch.as_tensor(y)).detach())


def maps(conv: ic.InvertibleConv, shape: Shape) -> tuple[Solve, Solve]:
    """Return K x + b and its inverse on arrays (B, C, *shape), in extended precision."""
    if isinstance(conv, ic.Inverse):
        return maps(conv.conv, shape)[::-1]
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        steps = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        pairs = [maps(step, shape) for step in steps]
        forwards, inverses = zip(*pairs, strict=True)
        return (
            lambda x: functools.reduce(lambda x, step: step(x), forwards, x),
            lambda y: functools.reduce(lambda y, step: step(y), reversed(inverses), y),
        )
    if isinstance(conv, ic.AutoregressiveConv):
        zeros = np.zeros((conv.channels, *shape))
        shift = zeros if conv.bias is None else (zeros.T + conv.bias).T
        return (
            lambda x: np.stack([convolve(conv, image) + shift for image in x]),
            lambda y: np.stack([substitute(conv, image - shift) for image in y]),
        )
    grid = (1,) * len(shape) if isinstance(conv, Pointwise) else shape
    matrix, shift = oracle.affine(conv, grid, EXTENDED)
    factors, offset = ExtendedLU(matrix), np.asarray(shift).reshape(-1, 1)
    columns: Solve = lambda x: x.reshape(len(x), len(matrix), -1)  # noqa: E731
    return (
        lambda x: np.stack([matrix @ c + offset for c in columns(x)]).reshape(x.shape),
        lambda y: np.stack([factors.solve(c - offset) for c in columns(y)]).reshape(y.shape),
    )


def _samples(shape: Shape, rng: np.random.Generator) -> Floats:
    normal, one_sign = rng.standard_normal(shape), rng.uniform(size=shape)
    even = np.broadcast_to(rng.uniform(0.5, 1, (shape[0], *(1 for _ in shape[1:]))), shape)
    kinds = np.arange(shape[0]).reshape(-1, *(1 for _ in shape[1:])) % _KINDS
    return np.where(kinds == 0, normal, np.where(kinds == 1, one_sign, even))


def _relative(computed: Floats, right: Floats) -> float:
    """Return the largest error of an entry over the largest one of its sample.

    A sample counts for no less than the median one of its kind, of y = K x and of random y.
    """
    off, largest = (np.abs(a).reshape(len(a), -1).max(axis=1) for a in (computed - right, right))
    if not np.isfinite(off).all():
        return math.inf
    for half in np.split(largest, 1 + (len(largest) not in (_FEW, _SAMPLES))):
        for kind in range(_KINDS):
            half[kind::_KINDS] = np.maximum(half[kind::_KINDS], np.median(half[kind::_KINDS]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(off > 0, off / largest, 0.0).max())
