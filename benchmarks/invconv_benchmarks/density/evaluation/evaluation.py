"""Evaluation of a trained model: bits/dim, and round trips of images and of samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Dataset, Part, noise_of
from invconv_benchmarks.density.evaluation import round_trip
from invconv_benchmarks.density.evaluation.round_trip import RoundTrip
from invconv_benchmarks.density.models.build import build
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.checkpoint import Checkpoint
from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor
Floats = np.ndarray[Any, Any]

NEAR = 1e-3  # of N(0, 1) noise
SAMPLE_SEED = 0  # of the noise, the same for every model with latents of the same shapes


def restore(path: Path, device: str = "cpu") -> tuple[Checkpoint, Multiscale]:
    """Return a checkpoint of a file or a run's folder, and the model with the average parameters.

    Raises
    ------
    ValueError
        If it is none, or damaged.
    """
    path = path / checkpoint.NAME if path.is_dir() else path
    stored = checkpoint.read(path)
    model = build(stored.recipe.architecture, stored.image_shape, seed=0)
    try:
        model.load_state_dict(stored.average)
    except RuntimeError as error:
        raise CommandError(f"{path}: {error!s:.300}") from None
    return stored, model.requires_grad_(False).eval().to(device)


@torch.no_grad()  # type: ignore[untyped-decorator]
def bits_per_dim(
    model: Multiscale, data: Dataset, part: Part = "test", batch: int = 100, draw: int = 0
) -> Floats:
    """Return bits a dimension of each tile held out, float64; every model has the same noise.

    Parameters
    ----------
    model : Multiscale
    data : Dataset
    part : {"test", "validation"}
    batch : int
        Images at a time.
    draw : int
        Which noise.
    """
    device = next(model.parameters()).device
    tiles, noise = data.held_out(part), noise_of(data, part, draw)
    found = []
    for start in range(0, len(tiles), batch):
        some = slice(start, start + batch)
        images, numbers = (torch.from_numpy(a[some]).to(device) for a in (tiles, noise))
        found.append(model.bits_per_dim(images, numbers).double().cpu().numpy())
    return np.concatenate(found)


def images_of_test(model: Multiscale, data: Dataset, count: int) -> Tensor:
    """Return the first test images as the model takes them, (count, C, H, W)."""
    images, noise = torch.from_numpy(data.test[:count]), noise_of(data)[:count]
    x, _ = model.dequantize(images, torch.from_numpy(noise))
    return x.to(next(model.parameters()).device)


@dataclass(frozen=True)
class Trip:
    """How many images or samples came back, as JSON has it: None where there is no number.

    Attributes
    ----------
    count, in_range, in_range_within, outside, outside_within, non_finite : int
        As of a `RoundTrip`.
    numbers_outside, error, bound, share : float or None
        As of a `RoundTrip`.
    returned : int or None
        Of samples, those that came back within `NEAR` of their noise.
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


def round_trips(
    model: Multiscale, data: Dataset, images: int, samples: int, temperature: float = 1.0
) -> dict[str, Trip]:
    """Return what became of "images" and "samples" on their way through the model and back.

    Of samples that leave the range far behind the rounding's bound may be large, or overflow:
    "returned" counts those that come back within `NEAR` of their noise.
    """
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    there = round_trip.reconstruct(model, images_of_test(model, data, images))
    back = round_trip.resample(model, samples, generator, temperature)
    return {"images": _trip(there), "samples": _trip(back, _returned(model, samples, temperature))}


@torch.no_grad()  # type: ignore[untyped-decorator]
def _returned(model: Multiscale, count: int, temperature: float) -> int:
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    zs = [temperature * z for z in model.draw_latents(count, generator)]
    again, _ = model.encode(model.decode(zs))
    errors = [(a - z).abs().flatten(1).amax(dim=1) for a, z in zip(again, zs, strict=True)]
    return int((torch.stack(errors).amax(dim=0) <= NEAR).sum())


def _trip(found: RoundTrip, returned: int | None = None) -> Trip:
    values = asdict(found)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            values[name] = None
    return Trip(**values, non_finite=found.non_finite, returned=returned)
