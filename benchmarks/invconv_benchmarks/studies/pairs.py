"""The calls that `overhead` times: ours, and PyTorch's that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import invconv as ic
import invconv_torch as it
from invconv.kernels.series import counts_of
from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.suites.group import Shape

SMALL, LARGE = (1, 12, 8, 8), (64, 12, 16, 16)
# at most, of a step and of one with QR mixing, as a part of PyTorch's time
EMERGING = {SMALL: (5.0, 7.0), LARGE: (1.3, 1.6), (32, 48, 8, 8): (1.3, 1.6)}
POINTWISE: dict[str, Any] = {
    "1x1": ic.Conv1x1, "PLU 1x1": ic.PLUConv1x1, "QR 1x1": ic.QRConv1x1,
}  # fmt: skip
PREPARED: dict[str, Any] = {
    "symmetric": ic.SymmetricConv.init,
    "periodic": ic.PeriodicConv.init,
    "exponential, zeros": ic.ExponentialConv.init,
    "exponential, circular": partial(ic.ExponentialConv.init, padding="circular"),
    "orthogonal 1x1": partial(ic.OrthogonalConv1x1.init, ndim=2),
    "circulant 1x1": partial(ic.CirculantConv1x1.init, ndim=2),
}


class Pair(NamedTuple):
    """One of our calls, and the one that it is compared with.

    Attributes
    ----------
    does : str
    shape : (B, C, H, W)
    limit : float or None
        Of its time, as a part of the other's; None where we set no limit.
    ours, theirs : callable
    gradients : bool
        Whether PyTorch keeps what a gradient needs.
    """

    does: str
    shape: Shape
    limit: float | None
    ours: Call
    theirs: Call
    gradients: bool = True


def pairs() -> Iterator[Pair]:
    """Yield all pairs of layers."""
    for shape, limits in EMERGING.items():
        yield from _emerging(shape, *limits)
    yield from _pointwise((100, 12, 32, 32), 1.5)
    yield from _periodic(LARGE, 2.0)
    yield from _exponential(LARGE, 1.0)
    yield from _prepared(LARGE, 2.0, 1.3)


def _emerging(shape: Shape, limit: float, limit_qr: float) -> Iterator[Pair]:
    """Yield forward and step beside two convolutions, which make images a pixel smaller each."""
    batch, channels, height, width = shape
    x, padded = torch.randn(shape), torch.randn(batch, channels, height + 2, width + 2)
    plain = nn.Sequential(nn.Conv2d(channels, channels, 2), nn.Conv2d(channels, channels, 2))
    layer, qr = it.EmergingConv2d(channels), it.EmergingConv2d(channels, mixing="qr")
    step, forward = step_of(plain, padded), partial(plain, padded)
    yield Pair("EmergingConv2d forward", shape, limit, lambda: layer(x), forward)
    yield Pair("EmergingConv2d step", shape, limit, step_of(layer, x), step)
    yield Pair("EmergingConv2d QR step", shape, limit_qr, step_of(qr, x), step)


def _pointwise(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield prepared inverses beside a 1x1 convolution."""
    y = torch.randn(shape)
    plain = partial(nn.Conv2d(shape[1], shape[1], 1, bias=False), y)
    for name, kind in POINTWISE.items():
        for library, images in {"torch": y, "numpy": y.numpy()}.items():
            conv = kind.init(shape[1], rng=np.random.default_rng(0), ndim=2, like=images)
            call = partial(conv.prepare(shape[2:]).inverse, images)
            yield Pair(f"{name} inverse {library}", shape, limit, call, plain, gradients=False)


def _periodic(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield forward and step beside a convolution of the same receptive field that wraps around."""
    channels, x = shape[1], torch.randn(shape)
    layer = it.PeriodicConv2d(channels)
    plain = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
    yield Pair("PeriodicConv2d forward", shape, limit, lambda: layer(x), partial(plain, x))
    yield Pair("PeriodicConv2d step", shape, limit, step_of(layer, x), step_of(plain, x))


def _exponential(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield forward and prepared inverse beside terms + 1 convolutions."""
    channels, x = shape[1], torch.randn(shape)
    for padding in ("zeros", "circular"):
        rng = np.random.default_rng(0)
        conv = ic.ExponentialConv.init(channels, padding=padding, rng=rng, like=x)
        plain = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding)
        counts = counts_of(conv._family.linear, conv._family.taps(conv.kernel, shape[2:]))
        again = nn.Sequential(*[plain] * (counts.steps * counts.terms + 1))
        ways = {"forward": conv.forward, "inverse": conv.prepare(shape[2:]).inverse}
        for does, way in ways.items():
            name, both = f"exponential {does}, {padding}", (partial(way, x), partial(again, x))
            yield Pair(name, shape, limit, *both, gradients=False)


def _prepared(shape: Shape, limit: float, limit_inverse: float) -> Iterator[Pair]:
    """Yield symmetric beside periodic, and prepared inverses beside their own forwards."""
    x, forward, inverse = torch.randn(shape), dict[str, Call](), dict[str, Call]()
    for name, init in PREPARED.items():
        conv = init(shape[1], rng=np.random.default_rng(0), like=x)
        forward[name] = partial(conv.forward, x)
        inverse[name] = partial(conv.prepare(shape[2:]).inverse, x)
    for does, calls in (("forward", forward), ("inverse", inverse)):
        both = calls["symmetric"], calls["periodic"]
        yield Pair(f"symmetric {does} / periodic", shape, limit, *both, gradients=False)
    for name in PREPARED:
        title, both = f"inverse / forward, {name}", (inverse[name], forward[name])
        yield Pair(title, shape, limit_inverse, *both, gradients=False)


def step_of(layer: nn.Module, x: Any) -> Call:
    """Return forward and backward of a layer, whose log-determinants count if it has any."""
    parameters = list(layer.parameters())

    def step() -> Any:
        for parameter in parameters:
            parameter.grad = None
        out = layer(x)
        z, log_det = out if isinstance(out, tuple) else (out, None)
        loss = z.square().sum()
        if log_det is not None:
            loss = loss - log_det.sum()
        loss.backward()
        return loss

    return step
