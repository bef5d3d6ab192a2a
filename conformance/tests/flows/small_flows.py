"""Small flows for the tests: Glows, one of a user's own parts, away from their start."""

from typing import Any

import torch
from torch import nn

from invconv_benchmarks import suites
from invconv_torch import ActNorm, Conv1x1, PeriodicConv2d, Squeeze
from invconv_torch.flows import AffineCoupling, Glow, Multiscale, Split

MIXINGS = suites.MIXINGS
SHAPE = (1, 4, 4)


class Rolled(nn.Module):  # type: ignore[misc]
    """A user's layer: rows move in a circle and are scaled, by e^context where there is one."""

    def __init__(self, context: int | None = None) -> None:
        super().__init__()
        self.context = context

    def forward(self, x: Any, context: Any = None) -> Any:
        log_scale = self._log_scale(x, context)
        return x.roll(1, 2) * log_scale.exp(), log_scale.flatten() * x[0].numel()

    def inverse(self, z: Any, context: Any = None) -> Any:
        log_scale = self._log_scale(z, context)
        return z.roll(-1, 2) / log_scale.exp(), -log_scale.flatten() * z[0].numel()

    def _log_scale(self, x: Any, context: Any) -> Any:
        assert (context is None) == (self.context is None)
        found = x.new_ones(len(x)) if context is None else context[:, 0]
        return found[:, None, None, None]


def own_parts(context: int | None = None) -> Multiscale:
    """Return a flow of parts of ours and of a user's, with two splits and no pattern."""
    layers = [
        PeriodicConv2d(1, 3),
        Rolled(context),
        Squeeze(basis="haar"),
        AffineCoupling(4, 4, swapped=True, scale_floor=0.2),
        Split(4),
        ActNorm(2),
        AffineCoupling(2, 4, context=context),
        Split(2, scale_floor=0.3),
        Conv1x1(1, bias=True),
    ]
    return Multiscale(SHAPE, layers)


def jacobians(flow: Multiscale, x: Any, context: Any = None) -> list[Any]:
    """Return dense Jacobians, from which log p(x) has to follow; images have to come back."""
    found, dense = flow.log_prob(x, context=context), []
    for i, image in enumerate(x):
        one = None if context is None else context[i : i + 1]

        def noise(image: Any, one: Any = one) -> Any:
            zs, _ = flow.encode(image[None], context=one)
            return torch.cat([z.flatten() for z in zs])

        dense.append(torch.autograd.functional.jacobian(noise, image).flatten(1))
        normal = torch.distributions.Normal(0, 1).log_prob(noise(image)).sum()
        expected = normal + torch.linalg.slogdet(dense[-1])[1]
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-8)
    zs, log_det = flow.encode(x, context=context)
    assert [tuple(z.shape[1:]) for z in zs] == flow.latent_shapes
    assert log_det.shape == (len(x),)
    torch.testing.assert_close(flow.decode(zs, context=context), x, rtol=0, atol=1e-9)
    return dense


def glow(mixing: Any = "emerging", shape: Any = SHAPE, **settings: Any) -> Glow:
    """Return a flow of 16 numbers unless something else is said."""
    settings = {"levels": 2, "depth": 1, "width": 4} | settings
    return Glow(shape, mixing=mixing, **settings)


def moved(flow: Multiscale, spread: float = 0.1, dtype: Any = torch.float64) -> Multiscale:
    """Return a flow with parameters away from their start, where couplings do nothing."""
    flow.to(dtype)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    flow.eval()
    return flow
