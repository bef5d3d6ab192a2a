"""Our layers beside PyTorch's, or beside other layers of ours, by the map's name."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import invconv as ic
import invconv_torch as it
from invconv.arrays.namespaces import Shape
from invconv_benchmarks import suites
from invconv_benchmarks.contenders.operators import Setup
from invconv_benchmarks.measure.timing import Call, Contender
from invconv_torch.flows import Glow

Pair = tuple[Call, Call]
_GLOW: dict[str, Any] = {"levels": 2, "depth": 4, "width": 32}


def contenders(setup: Setup) -> list[Contender]:
    """Return both calls of a pair, in PyTorch on the CPU."""
    if setup.target.library.name != "torch" or setup.target.on_cuda:
        return []
    name, shape = setup.group.map, setup.group.shape
    both = functools.cache(lambda: pair(name, shape))
    other = name.partition(" / ")[2] or "nn.Conv2d"
    return [
        setup.contender("invconv", "ours", "call", lambda: both()[0]),
        setup.contender(other, "plain", "call", lambda: both()[1]),
    ]


def pair(name: str, shape: Shape) -> Pair:
    """Return our call and the one that it is compared with, by the map's name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return next(make for begin, make in _PAIRS.items() if begin in name)(name, shape)


def _emerging(name: str, shape: Shape) -> Pair:
    """Return forwards or steps, beside two 2 x 2 convolutions of images that are padded already."""
    batch, channels, height, width = shape
    x, padded = torch.randn(shape), torch.randn(batch, channels, height + 2, width + 2)
    plain = nn.Sequential(nn.Conv2d(channels, channels, 2), nn.Conv2d(channels, channels, 2))
    layer: nn.Module = it.EmergingConv2d(channels, mixing="qr" if "QR" in name else None)
    return _steps_or_forwards(name, layer, x, plain, padded)


def _periodic(name: str, shape: Shape) -> Pair:
    channels, x = shape[1], torch.randn(shape)
    layer: nn.Module = it.PeriodicConv2d(channels)
    plain = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
    return _steps_or_forwards(name, layer, x, plain, x)


def _steps_or_forwards(name: str, layer: Any, x: Any, plain: Any, padded: Any) -> Pair:
    run = step_of if "step" in name else partial
    return run(layer, x), run(plain, padded)


def _pointwise(name: str, shape: Shape) -> Pair:
    y, channels = torch.randn(shape), shape[1]
    images = y.numpy() if name.endswith("numpy") else y
    plain = nn.Conv2d(channels, channels, 1, bias=False).requires_grad_(False)
    kinds: dict[str, Any] = {"PLU": ic.PLUConv1x1, "QR": ic.QRConv1x1}
    kind = kinds.get(name.partition(" ")[0], ic.Conv1x1)
    conv = kind.init(channels, rng=np.random.default_rng(0), ndim=2, like=images)
    inverse = conv.prepare(shape[2:]).inverse
    return lambda: torch.as_tensor(inverse(images)), partial(plain, y)


def _exponential(name: str, shape: Shape) -> Pair:
    """Return a forward or a prepared inverse, and convolutions as many as the series has terms."""
    channels, x, padding = shape[1], torch.randn(shape), name.rpartition(" ")[2]
    rng = np.random.default_rng(0)
    conv = ic.ExponentialConv.init(channels, padding=padding, rng=rng, like=x)
    settings: dict[str, Any] = {"padding": 1, "padding_mode": padding, "bias": False}
    plain = nn.Conv2d(channels, channels, 3, **settings).requires_grad_(False)
    _, counts = conv._family.counted(conv.kernel, shape[2:])
    assert counts is not None  # the kernel's values can be read
    again = nn.Sequential(*[plain] * (counts.steps * counts.terms))
    way = conv.forward if "forward" in name else conv.prepare(shape[2:]).inverse
    return partial(way, x), partial(again, x)


def _ours(name: str, does: str, shape: Shape) -> Call:
    x = torch.randn(shape)
    taps = "" if name in ("orthogonal", "circulant") else " 3"
    conv = suites.build(f"{name}{taps}", shape[1]).asarrays(x)
    return partial(conv.forward if does == "forward" else conv.prepare(shape[2:]).inverse, x)


def _beside_ours(name: str, shape: Shape) -> Pair:
    """Return the pair of "NAME DOES / periodic" or "NAME DOES / forward", both ours."""
    kind, does, _, other = name.split()
    beside = (kind, "forward") if other == "forward" else ("periodic", does)
    return _ours(kind, does, shape), _ours(*beside, shape)


def _glow(name: str, shape: Shape) -> Pair:
    mixing, plain = name.partition(", ")[2].split(" / ")
    make = _glow_step if "step" in name else _glow_samples
    return make(mixing, shape), make(plain, shape)


def _glow_step(mixing: str, shape: Shape) -> Call:
    """Return a training step whose learning rate moves nothing far."""
    images, flow = _flow(mixing, shape)
    optimiser = torch.optim.Adamax(flow.parameters(), 1e-7)

    def step() -> Any:
        optimiser.zero_grad()
        loss = flow.bits_per_dim(images).mean()
        loss.backward()
        optimiser.step()
        return loss

    return step


def _glow_samples(mixing: str, shape: Shape) -> Call:
    _, flow = _flow(mixing, shape)
    draw: Call = torch.no_grad()(partial(flow.prepare().sample, shape[0]))
    return draw


def _flow(mixing: str, shape: Shape) -> tuple[Any, Any]:
    images = torch.randint(256, shape, dtype=torch.uint8)
    flow = Glow(shape[1:], mixing=mixing, **_GLOW)
    flow.initialize(flow.dequantize(images)[0])
    return images, flow


def step_of(layer: Any, x: Any) -> Call:
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


_PAIRS: dict[str, Callable[[str, Shape], Pair]] = {  # the first entry whose words are in the name
    "Glow": _glow,
    "/": _beside_ours,
    "exponential": _exponential,
    "1x1": _pointwise,
    "periodic": _periodic,
    "emerging": _emerging,
}
