"""The time that samples take: by exact inverses, and one pixel or one number at a time.

Without wavefronts one inverts an autoregressive convolution pixel after pixel, with one forward a
pixel; a masked autoregressive flow has no other way, and needs one pass a number.
"""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

import invconv as ic
from invconv_benchmarks.density.models.maf import AutoregressiveAffine
from invconv_benchmarks.measure import timing
from invconv_torch import EmergingConv2d
from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor

EXACT = "exact inverse"
PIXEL_BY_PIXEL = "one forward a pixel"
NUMBER_BY_NUMBER = "one pass a number, of what it sees"
WHOLE_IMAGES = "one pass a number, of the whole image"
_PATIENCE = 5.0  # a call of more seconds is measured once, without a warm-up
_PASSES = 5  # the number of passes that are measured where all would take too long


@dataclass(frozen=True)
class SamplingTime:
    """The time that samples of a model take.

    Attributes
    ----------
    model : str
    method : str
        `EXACT`, `PIXEL_BY_PIXEL`, `NUMBER_BY_NUMBER` or `WHOLE_IMAGES`.
    count : int
        How many samples are drawn at a time.
    seconds : float
        The median, of all samples together.
    repeats : int
        How many times it is the median of.
    share : float
        Of the work, what has been run; below 1, the time of the whole is in proportion to it.
    """

    model: str
    method: str
    count: int
    seconds: float
    repeats: int
    share: float


@dataclass(frozen=True)
class _Way:
    """A call that samples, the share of the work that it does, and its times so far."""

    model: str
    method: str
    run: Callable[[], Any]
    share: float = 1.0
    samples: list[float] = field(default_factory=list)

    def measure(self) -> None:
        self.samples.append(timing.seconds(self._run_to_the_end) / self.share)

    def _run_to_the_end(self) -> None:
        self.run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    @property
    def slow(self) -> bool:
        return max(self.samples) * self.share > _PATIENCE


@torch.no_grad()  # type: ignore[untyped-decorator]
def time_sampling(
    models: Mapping[str, Multiscale],
    count: int = 100,
    repeats: int = 3,
    progress: Callable[[str], None] = lambda text: None,
) -> list[SamplingTime]:
    """Time each model's ways to sample; they take turns, after a first call that is not counted.

    Parameters
    ----------
    models : mapping of str to Multiscale
        By the names that are reported.
    count : int
        Samples at a time.
    repeats : int
    progress : callable
        Told the way that is about to run.

    Returns
    -------
    list of SamplingTime
        In the order of the models.
    """
    ways = [way for name, model in models.items() for way in _ways(name, model, count)]
    for turn in range(repeats + 1):
        for way in ways:
            if turn == 0 or not way.slow:
                progress(f"{way.model}: {way.method}")
                way.measure()
    found = []
    for way in ways:
        counted = way.samples[1:] or way.samples
        median = statistics.median(counted)
        found.append(SamplingTime(way.model, way.method, count, median, len(counted), way.share))
    return found


def _ways(name: str, model: Multiscale, count: int) -> list[_Way]:
    model = copy.deepcopy(model).eval()
    zs = model.draw_latents(count, torch.Generator().manual_seed(0))
    layers = list(model.layers.values())
    if any(isinstance(layer, AutoregressiveAffine) for layer in layers):
        x = model.decode([0 * z[:1] for z in zs]).expand(count, -1, -1, -1).contiguous()
        return [
            _Way(name, NUMBER_BY_NUMBER, lambda: model.decode(zs)),
            _Way(name, WHOLE_IMAGES, lambda: _passes(model, x), _PASSES / x[0].numel()),
        ]
    ways = [_Way(name, EXACT, lambda: model.decode(zs))]
    if any(isinstance(layer, EmergingConv2d) for layer in layers):
        slow = pixel_by_pixel(model)
        ways.append(_Way(name, PIXEL_BY_PIXEL, lambda: slow.decode(zs)))
    return ways


def _passes(model: Multiscale, x: Tensor) -> None:
    """Run the first few passes of every layer over whole images."""
    for layer in model.layers.values():
        if isinstance(layer, AutoregressiveAffine):
            for _ in range(_PASSES):
                layer.shift_and_scale(x)


def pixel_by_pixel(model: Multiscale) -> Multiscale:
    """Return a model whose autoregressive convolutions are inverted one pixel at a time."""
    slow: Multiscale = copy.deepcopy(model)
    for name, layer in model.layers.items():
        if isinstance(layer, EmergingConv2d):
            slow.layers[name] = _PixelByPixel(layer)
    return slow


class _PixelByPixel(nn.Module):  # type: ignore[misc]
    def __init__(self, layer: EmergingConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = self.layer(x)
        return result

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        conv = self.layer.operator()
        log_det = -conv.log_det(tuple(z.shape[2:])).expand(len(z))
        return invert_pixel_by_pixel(conv, z), log_det


def invert_pixel_by_pixel(conv: ic.InvertibleConv, y: Tensor, pixels: int | None = None) -> Tensor:
    """Return x, shape (B, C, H, W), with one forward a pixel of each autoregressive convolution.

    Other steps of a chain are inverted as they are. With a number of pixels each stops after so
    many, which tells the time of all: a forward is as long for every pixel.
    """
    if isinstance(conv, ic.Chain):
        for step in reversed(conv.steps):
            y = invert_pixel_by_pixel(step, y, pixels)
        return y
    if isinstance(conv, ic.EmergingConv):
        if conv.bias is not None:
            y = y - conv.bias[:, None, None]
        return _substitute(conv.first, _substitute(conv.second, y, pixels), pixels)
    x: Tensor = conv.prepare(tuple(y.shape[2:]), check=False).inverse(y)
    return x


def _substitute(conv: ic.AutoregressiveConv, y: Tensor, pixels: int | None) -> Tensor:
    """Solve x[p] = D^-1 (y[p] - what the convolution makes of the pixels before p)."""
    if conv.mask != "corner":
        raise ValueError(f"mask: expected 'corner', got {conv.mask!r}")
    steps: Any = conv.direction  # the side of the pixels that a pixel sees
    upper = conv.channel_order == "upper"
    own = conv.kernel[:, :, 0, 0]
    own = own.triu() if upper else own.tril()
    x = torch.zeros_like(y)
    rows, columns = (range(n)[::step] for n, step in zip(y.shape[2:], steps, strict=True))
    for i, j in itertools.islice(itertools.product(rows, columns), pixels):
        rest = y[:, :, i, j] - conv.forward(x)[:, :, i, j]
        x[:, :, i, j] = torch.linalg.solve_triangular(own.mT, rest, upper=not upper, left=False)
    return x
