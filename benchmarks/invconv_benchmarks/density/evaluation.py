"""What a trained model is worth: bits a dimension, reconstructions, samples that invert back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from invconv_benchmarks.density import checkpoint
from invconv_benchmarks.density.architecture import build
from invconv_benchmarks.density.checkpoint import Checkpoint
from invconv_benchmarks.density.dataset import Dataset, noise_of_test
from invconv_benchmarks.density.dequantise import dequantise, quantise
from invconv_benchmarks.density.model import DensityModel

Tensor: TypeAlias = torch.Tensor
Floats = np.ndarray[Any, Any]

SAMPLE_SEED = 0


def restore(path: Path, device: str = "cpu") -> tuple[Checkpoint, DensityModel]:
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
        checkpoint.load_into(model.state_dict(), stored.part("average"), "average")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return stored, model.requires_grad_(False).eval().to(device)


@torch.no_grad()  # type: ignore[untyped-decorator]
def bits_per_dim(model: DensityModel, data: Dataset, batch: int = 100, draw: int = 0) -> Floats:
    """Return bits a dimension of each test image, float64; the noise is the same for every model.

    Parameters
    ----------
    model : DensityModel
    data : Dataset
    batch : int
        Images at a time.
    draw : int
        Which noise.
    """
    device = next(model.parameters()).device
    noise = noise_of_test(data, draw)
    parts = []
    for start in range(0, len(data.test), batch):
        some = slice(start, start + batch)
        images, numbers = (torch.from_numpy(a[some]).to(device) for a in (data.test, noise))
        parts.append(model.bits_per_dim(images, numbers).double().cpu().numpy())
    return np.concatenate(parts)


@dataclass(frozen=True)
class Reconstruction:
    """Test images, encoded and decoded.

    Attributes
    ----------
    images, restored : uint8 array, shape (N, C, H, W)
    error : array, shape (N,)
        The largest of an image, in units of a pixel's 256 values.
    """

    images: Floats
    restored: Floats
    error: Floats


@torch.no_grad()  # type: ignore[untyped-decorator]
def reconstruct(model: DensityModel, data: Dataset, count: int = 100) -> Reconstruction:
    """Encode and decode the first test images."""
    device = next(model.parameters()).device
    images = torch.from_numpy(data.test[:count])
    x = dequantise(images, torch.from_numpy(noise_of_test(data)[:count])).to(device)
    zs, _ = model.encode(x)
    back = model.decode(zs)
    error = 256 * (back - x).abs().amax(dim=(1, 2, 3))
    return Reconstruction(
        data.test[:count], quantise(back).cpu().numpy(), error.double().cpu().numpy()
    )


@dataclass(frozen=True)
class Samples:
    """Samples of a model, and whether they are what they should be.

    Attributes
    ----------
    pixels : uint8 array, shape (N, C, H, W)
        What is out of range becomes the nearest pixel value; not finite, black.
    finite, in_range : int
        How many are, all over the image.
    back : int
        How many of those in range are encoded to the noise they came from, within `tolerance`.
    worst : float or None
        The largest difference from its noise, over those in range.
    """

    pixels: Floats
    finite: int
    in_range: int
    back: int
    worst: float | None


TOLERANCE = 1e-2  # of N(0, 1) noise, in float32


@torch.no_grad()  # type: ignore[untyped-decorator]
def draw(
    model: DensityModel, count: int, temperature: float = 1.0, seed: int = SAMPLE_SEED
) -> Samples:
    """Draw samples, and invert back those that are images.

    The same seed gives models with latents of the same shapes the same noise.
    """
    latents = model.draw_latents(count, torch.Generator().manual_seed(seed))
    zs = [temperature * z for z in latents]
    x = model.decode(zs)
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    within = ((x >= -0.5) & (x < 0.5)).flatten(1).all(dim=1)
    errors = torch.zeros(0)
    if bool(within.any()):
        again, _ = model.encode(x[within])
        pairs = zip(again, zs, strict=True)
        errors = torch.stack([(a - z[within]).abs().flatten(1).amax(1) for a, z in pairs]).amax(0)
    return Samples(
        quantise(torch.nan_to_num(x, nan=-0.5)).cpu().numpy(),
        int(finite.sum()),
        int(within.sum()),
        int((errors <= TOLERANCE).sum()),
        float(errors.max()) if len(errors) else None,
    )
