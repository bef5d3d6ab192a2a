"""Evaluation of a trained model: bits/dim, and round trips of images and of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Dataset, Part, noise_of
from invconv_benchmarks.density.evaluation import round_trip
from invconv_benchmarks.density.evaluation.round_trip import Trip
from invconv_benchmarks.density.models.build import build
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.checkpoint import Checkpoint
from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor
Floats = np.ndarray[Any, Any]

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
def bits_per_dim(model: Multiscale, data: Dataset, part: Part = "test", batch: int = 100) -> Floats:
    """Return bits a dimension of each tile held out, float64; every model has the same noise.

    Parameters
    ----------
    model : Multiscale
    data : Dataset
    part : {"test", "validation"}
    batch : int
        Images at a time.
    """
    device = next(model.parameters()).device
    tiles, noise = data.held_out(part), noise_of(data, part)
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


def round_trips(
    model: Multiscale, data: Dataset, images: int, samples: int, temperature: float = 1.0
) -> dict[str, Trip]:
    """Return what became of "images" and "samples" on their way through the model and back."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    return {
        "images": round_trip.reconstruct(model, images_of_test(model, data, images)),
        "samples": round_trip.resample(model, samples, generator, temperature),
    }
