"""The calls that `overhead` times: ours, and PyTorch's that they are compared with."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import invconv as ic
import invconv_torch as it
from invconv.kernels.series import counts_of
from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.suites.group import Shape

SMALL = (1, 12, 8, 8)
EMERGING = {SMALL: (5.0, 7.0), (64, 12, 16, 16): (1.3, 1.6), (32, 48, 8, 8): (1.3, 1.6)}
POINTWISE, POINTWISE_LIMIT = (100, 12, 32, 32), 1.5
PERIODIC, PERIODIC_LIMIT = (64, 12, 16, 16), 2.0
EXPONENTIAL, EXPONENTIAL_LIMIT = (64, 12, 16, 16), 1.0
PREPARED, PREPARED_LIMIT, SYMMETRIC_LIMIT = (64, 12, 16, 16), 1.3, 2.0


@dataclass(frozen=True)
class Pair:
    """One of our calls, and PyTorch's that it is compared with.

    Attributes
    ----------
    does : str
    shape : (B, C, H, W)
    limit : float or None
        What its time should be at most, as a part of PyTorch's; None where we set no limit.
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
    """Yield what is timed."""
    for shape, limits in EMERGING.items():
        yield from _emerging(shape, *limits)
    yield from _pointwise(POINTWISE, POINTWISE_LIMIT)
    yield from _periodic(PERIODIC, PERIODIC_LIMIT)
    yield from _exponential(EXPONENTIAL, EXPONENTIAL_LIMIT)
    yield from _prepared(PREPARED, SYMMETRIC_LIMIT, PREPARED_LIMIT)


def _emerging(shape: Shape, limit: float, limit_qr: float) -> Iterator[Pair]:
    """Yield forward and step beside two convolutions, which make images a pixel smaller each."""
    batch, channels, height, width = shape
    x, padded = torch.randn(shape), torch.randn(batch, channels, height + 2, width + 2)
    first, second = nn.Conv2d(channels, channels, 2), nn.Conv2d(channels, channels, 2)
    layer, qr = it.EmergingConv2d(channels), it.EmergingConv2d(channels, mixing="qr")
    step = _plain_step([first, second], padded)
    yield Pair(
        "EmergingConv2d forward", shape, limit, lambda: layer(x), lambda: second(first(padded))
    )
    yield Pair("EmergingConv2d step", shape, limit, step_of(layer, x), step)
    yield Pair("EmergingConv2d QR step", shape, limit_qr, step_of(qr, x), step)


def _pointwise(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield prepared inverses beside a 1x1 convolution."""
    y, plain = torch.randn(shape), nn.Conv2d(shape[1], shape[1], 1, bias=False)
    kinds: dict[str, Any] = {"1x1": ic.Conv1x1, "PLU 1x1": ic.PLUConv1x1, "QR 1x1": ic.QRConv1x1}

    def pair(name: str, library: str, images: Any) -> Pair:
        rng = np.random.default_rng(0)
        conv = kinds[name].init(shape[1], rng=rng, ndim=2, like=images)
        inverse, does = conv.prepare(shape[2:]).inverse, f"{name} inverse {library}"
        return Pair(does, shape, limit, lambda: inverse(images), lambda: plain(y), gradients=False)

    for name in kinds:
        yield pair(name, "torch", y)
        yield pair(name, "numpy", y.numpy())


def _periodic(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield forward and step beside a convolution of the same receptive field that wraps around."""
    channels, x = shape[1], torch.randn(shape)
    layer = it.PeriodicConv2d(channels)
    plain = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
    yield Pair("PeriodicConv2d forward", shape, limit, lambda: layer(x), lambda: plain(x))
    yield Pair("PeriodicConv2d step", shape, limit, step_of(layer, x), _plain_step([plain], x))


def _exponential(shape: Shape, limit: float) -> Iterator[Pair]:
    """Yield forward and prepared inverse beside terms + 1 convolutions."""
    channels, x = shape[1], torch.randn(shape)
    for padding in ("zeros", "circular"):
        rng = np.random.default_rng(0)
        conv = ic.ExponentialConv.init(channels, padding=padding, rng=rng, like=x)
        plain = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding)
        prepared = conv.prepare(shape[2:])
        counts = counts_of(conv._family.linear, conv._family.taps(conv.kernel, shape[2:]))
        calls = {"forward": functools.partial(conv.forward, x)}
        calls["inverse"] = functools.partial(prepared.inverse, x)
        convolutions = functools.partial(_again, plain, x, counts.steps * counts.terms + 1)
        for does, call in calls.items():
            name = f"exponential {does}, {padding}"
            yield Pair(name, shape, limit, call, convolutions, gradients=False)


def _prepared(shape: Shape, limit: float, limit_inverse: float) -> Iterator[Pair]:
    """Yield symmetric beside periodic, and prepared inverses beside their own forwards."""
    x, circular = torch.randn(shape), {"padding": "circular"}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "symmetric": (ic.SymmetricConv, {}),
        "periodic": (ic.PeriodicConv, {}),
        "exponential, zeros": (ic.ExponentialConv, {}),
        "exponential, circular": (ic.ExponentialConv, circular),
        "orthogonal 1x1": (ic.OrthogonalConv1x1, {"ndim": 2}),
        "circulant 1x1": (ic.CirculantConv1x1, {"ndim": 2}),
    }
    calls: dict[str, tuple[Call, Call]] = {}
    for name, (kind, settings) in kinds.items():
        conv = kind.init(shape[1], rng=np.random.default_rng(0), like=x, **settings)
        inverse = conv.prepare(shape[2:]).inverse
        calls[name] = functools.partial(inverse, x), functools.partial(conv.forward, x)
    for i, does in ((1, "forward"), (0, "inverse")):
        both = calls["symmetric"][i], calls["periodic"][i]
        yield Pair(f"symmetric {does} / periodic", shape, limit, *both, gradients=False)
    for name, both in calls.items():
        title = f"inverse / forward, {name}"
        yield Pair(title, shape, limit_inverse, *both, gradients=False)


def _again(layer: nn.Module, x: Any, times: int) -> Any:
    """Return what a layer that is run so often makes of images."""
    for _ in range(times):
        x = layer(x)
    return x


def step_of(layer: nn.Module, x: Any) -> Call:
    """Return forward and backward of a layer that returns images and log-determinants."""
    parameters = list(layer.parameters())

    def step() -> Any:
        for parameter in parameters:
            parameter.grad = None
        z, log_det = layer(x)
        loss = z.square().sum() - log_det.sum()
        loss.backward()
        return loss

    return step


def _plain_step(layers: Sequence[nn.Module], x: Any) -> Call:
    """Return forward and backward of layers one after another that return images."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]

    def step() -> Any:
        for parameter in parameters:
            parameter.grad = None
        z = x
        for layer in layers:
            z = layer(z)
        loss = z.square().sum()
        loss.backward()
        return loss

    return step
