"""A whole Glow with each mixing layer beside the same Glow with plain 1x1s, for `overhead`.

Both have the same couplings, which take most of the time; what differs is the mixing layer alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from invconv.flows.architecture import MIXINGS
from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.studies.pairs import Pair
from invconv_torch.flows import Glow

SHAPE = (32, 3, 32, 32)
SIZE = {"levels": 2, "depth": 4, "width": 32}
SAMPLES = 100
STEP_LIMITS = {"emerging": 1.25, "qr": 1.05}
SAMPLE_LIMITS = {"emerging": 1.2, "qr": 1.2, "periodic": 1.2}  # the paper's


def flow_pairs(
    shape: Sequence[int] = SHAPE, size: Mapping[str, Any] = SIZE, samples: int = SAMPLES
) -> Iterator[Pair]:
    """Yield a training step and the drawing of samples for every mixing.

    Parameters
    ----------
    shape : (B, C, H, W)
        Of the images of a step.
    size : mapping
        Levels, depth and width of each Glow.
    samples : int
        How many are drawn at a time.
    """
    images = torch.randint(256, tuple(shape), dtype=torch.uint8)
    flows: dict[str, Glow] = {}
    for mixing in MIXINGS:
        flows[mixing] = flow = Glow(shape[1:], mixing=mixing, **size)
        flow.initialize(flow.dequantize(images)[0])
    steps = {mixing: _step(flow, images) for mixing, flow in flows.items()}
    batch, channels, height, width = shape
    for mixing in MIXINGS[1:]:
        limit = STEP_LIMITS.get(mixing)
        name = f"Glow step, {mixing} / plain"
        yield Pair(name, (batch, channels, height, width), limit, steps[mixing], steps["plain"])
    draw = {
        mixing: partial(copy.deepcopy(flow).prepare().sample, samples)
        for mixing, flow in flows.items()
    }
    for mixing in MIXINGS[1:]:
        limit = SAMPLE_LIMITS.get(mixing)
        name, both = f"Glow samples, {mixing} / plain", (draw[mixing], draw["plain"])
        yield Pair(name, (samples, channels, height, width), limit, *both, gradients=False)


def _step(flow: Glow, images: Any) -> Call:
    """Return a training step whose learning rate moves nothing far."""
    optimiser = torch.optim.Adamax(flow.parameters(), 1e-7)

    def step() -> Any:
        optimiser.zero_grad()
        loss = flow.bits_per_dim(images).mean()
        loss.backward()
        optimiser.step()
        return loss

    return step
