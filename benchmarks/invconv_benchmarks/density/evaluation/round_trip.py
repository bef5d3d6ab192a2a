"""Rounding errors of a model's round trip: a bound for them, and how large they are.

A layer y = f(x) is computed as f(x) + e, and its inverse as x with f(x) = y + e. An entry of y is
a sum of n products; with rounding errors that are independent and have mean 0 (N. J. Higham,
T. Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41, 2019)

    e ~ u sqrt(n) m,    u = eps / 2,  m the largest number in the layer's input, output and bias.

What comes of an error, through all the layers that follow, is the condition of the flow at this
image. It is found by doing so: in float64, random errors N(0, e^2), twice as large in variance
since a layer runs forward and backward, are added at every layer, and the worst that comes back is
the bound (Monte Carlo arithmetic: D. S. Parker, 1997). It knows nothing of the errors that the
model itself makes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import nn

from invconv_torch.flows import Multiscale
from invconv_torch.flows.running import Watch

Tensor: TypeAlias = torch.Tensor

NEAR = 1e-3  # of N(0, 1) noise
_PROBES = 8


@dataclass(frozen=True)
class Trip:
    """The number of images or samples that came back, as JSON has it: None is no finite number.

    Attributes
    ----------
    count : int
        All of them.
    in_range, in_range_within : int
        Those that are images, all numbers in [0, 1), and of these those within their bound.
    outside, outside_within : int
        Those that are finite, but leave that range somewhere, and of these those within.
    non_finite : int
        Those with a NaN or inf.
    numbers_outside : float or None
        The share of the numbers of finite ones that are outside the range: of a dark image, nearly
        every sample has a few.
    error, bound : float or None
        The largest of those that are finite.
    share : float or None
        The largest share of its bound that one of them used up.
    returned : int or None
        Of samples, those that came back within `NEAR` of their noise. Of samples that leave the
        range far behind, the rounding's bound may be large, or overflow.
    """

    count: int
    in_range: int
    in_range_within: int
    outside: int
    outside_within: int
    non_finite: int
    numbers_outside: float | None
    error: float | None
    bound: float | None
    share: float | None
    returned: int | None = None

    @property
    def holds(self) -> bool:
        """Whether all that are in range came back within their bound."""
        return self.in_range_within == self.in_range


@torch.no_grad()  # type: ignore[untyped-decorator]
def reconstruct(model: Multiscale, x: Tensor) -> Trip:
    """Send images (B, C, H, W) in [0, 1) to their noise and back."""
    back = model.decode(model.encode(x)[0])
    return _judged(x, _largest(back - x), image_bounds(model, x))


@torch.no_grad()  # type: ignore[untyped-decorator]
def resample(
    model: Multiscale,
    count: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Trip:
    """Draw samples, and send them back to their noise."""
    zs = [temperature * z for z in model.draw_latents(count, generator)]
    x = model.decode(zs)
    errors = [_largest(f - z) for f, z in zip(model.encode(x)[0], zs, strict=True)]
    error = torch.stack(errors).amax(dim=0)
    found = _judged(x, error, noise_bounds(model, zs))
    return replace(found, returned=int((error <= NEAR).sum()))


@torch.no_grad()  # type: ignore[untyped-decorator]
def image_bounds(model: Multiscale, x: Tensor) -> Tensor:
    """Bound the largest error of decode(encode(x)), shape (B,), in the model's precision."""
    twin, x = _in_float64(model), x.double()
    sizes = _Sizes(twin, x)
    zs, _ = twin.encode(x, watch=sizes)
    back = twin.decode([_repeated(z) for z in zs], watch=_errors(model, sizes))
    return _spread([back])


@torch.no_grad()  # type: ignore[untyped-decorator]
def noise_bounds(model: Multiscale, zs: Sequence[Tensor]) -> Tensor:
    """Bound the largest error of encode(decode(zs)), shape (B,), in the model's precision."""
    twin = _in_float64(model)
    x = twin.decode([z.double() for z in zs])
    sizes = _Sizes(twin, x)
    twin.encode(x, watch=sizes)
    found, _ = twin.encode(_repeated(x), watch=_errors(model, sizes))
    return _spread(found)


class _Sizes:
    """The largest number in the sums of every layer, a sample; a watch for `encode`."""

    def __init__(self, model: Multiscale, x: Tensor) -> None:
        biases = {name: getattr(layer, "bias", None) for name, layer in model.steps()}
        self.by_name = {
            name: x.new_full((len(x),), 0.0 if bias is None else float(bias.abs().max()))
            for name, bias in biases.items()
        }
        self._before = _largest(x - 0.5)  # which the first layer sees

    def __call__(self, name: str, out: Tensor) -> Tensor:
        after = _largest(out)
        for size in (self._before, after):
            self.by_name[name] = torch.maximum(self.by_name[name], size)
        self._before = after
        return out


def _errors(model: Multiscale, sizes: _Sizes) -> Watch:
    """Return a watch that adds what rounding may do in the model's precision, to all but one copy.

    Of `_repeated` samples, that is; the first copy stays exact.
    """
    unit = torch.finfo(next(model.parameters()).dtype).eps / 2
    terms = {name: _terms(layer) for name, layer in model.steps()}
    generator = torch.Generator().manual_seed(0)

    def add(name: str, out: Tensor) -> Tensor:
        size = math.sqrt(2 * terms[name]) * unit * sizes.by_name[name]
        noise = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device)
        noise[: len(size)] = 0
        return out + _repeated(size)[:, None, None, None] * noise

    return add


def _terms(layer: nn.Module) -> int:
    """Return the length of the longest sums in a layer, 0 where it only moves numbers."""
    weights = list(layer.parameters())
    return max((p[0].numel() if p.ndim > 1 else 1 for p in weights), default=0)


def _in_float64(model: Multiscale) -> Multiscale:
    twin: Multiscale = copy.deepcopy(model).double().eval()
    return twin


def _repeated(x: Tensor) -> Tensor:
    """Return all samples once for every probe and once more: one pass costs less than many."""
    return x.repeat(_PROBES + 1, *(1,) * (x.ndim - 1))


def _spread(found: Sequence[Tensor]) -> Tensor:
    """Return how far the probes of each sample are from its first copy at most."""
    copies = torch.cat([part.flatten(1) for part in found], dim=1).unflatten(0, (_PROBES + 1, -1))
    return (copies[1:] - copies[0]).abs().amax(dim=(0, 2))


def _largest(x: Tensor) -> Tensor:
    return x.abs().flatten(1).amax(dim=1)


def _judged(x: Tensor, error: Tensor, bound: Tensor) -> Trip:
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    ranged = ((x >= 0) & (x < 1)).flatten(1)
    image = ranged.all(dim=1)
    within = (error <= bound) & torch.isfinite(bound)
    outside = finite & ~image

    def largest(values: Tensor) -> float | None:
        most = float(values[finite].max()) if finite.any() else math.inf
        return most if math.isfinite(most) else None

    return Trip(
        len(x),
        in_range=int(image.sum()),
        in_range_within=int((image & within).sum()),
        outside=int(outside.sum()),
        outside_within=int((outside & within).sum()),
        non_finite=int((~finite).sum()),
        numbers_outside=float((~ranged[finite]).double().mean()) if finite.any() else None,
        error=largest(error),
        bound=largest(bound),
        share=largest(torch.where(torch.isfinite(bound), error / bound, math.inf)),
    )
