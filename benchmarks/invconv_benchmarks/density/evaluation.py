"""Evaluation of a trained model: bits/dim, round trips of images and of samples, a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invconv import diagnose
from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data import Dataset, Part, noise_of
from invconv_benchmarks.density.recipe import CHECKPOINT, Checkpoint, imported, read_checkpoint
from invconv_benchmarks.report.figures import Floats
from invconv_torch import InvertibleModule
from invconv_torch.flows import Multiscale

_AT_ONCE = 100  # images in a round trip at a time
SAMPLE_SEED = 0  # of the noise, the same for every model with latents of the same shapes


def restore(
    path: Path, device: str = "cpu", mixing: str | None = None
) -> tuple[Checkpoint, Multiscale]:
    """Return the checkpoint of a run's folder or a file, and the model with average parameters.

    No module that a checkpoint names is imported; one of the user's ``mixing`` is.
    """
    path = path / CHECKPOINT if path.is_dir() else path
    stored = read_checkpoint(path)
    if mixing not in (None, own := stored.recipe.mixing):
        raise CommandError(f"--mixing: expected {own!r}, as the run has, got {mixing!r}")
    if mixing is not None:
        imported(mixing)
    model = stored.recipe.flow(stored.image_shape)
    try:
        model.load_state_dict(stored.average)
    except RuntimeError as error:
        raise CommandError(f"{path}: {error!s:.300}") from None
    return stored, model.requires_grad_(False).eval().to(device)


@torch.no_grad()  # type: ignore[untyped-decorator]
def bits_per_dim(model: Multiscale, data: Dataset, part: Part = "test", batch: int = 100) -> Floats:
    """Return bits per dimension of each held-out tile, float64; all models have the same noise."""
    device = next(model.parameters()).device
    tiles, noise = data.held_out(part), noise_of(data, part)
    bits = []
    for start in range(0, len(tiles), batch):
        some = slice(start, start + batch)
        images, numbers = (torch.from_numpy(a[some]).to(device) for a in (tiles, noise))
        bits.append(model.bits_per_dim(images, numbers).double().cpu().numpy())
    return np.concatenate(bits)


def images_of_test(model: Multiscale, data: Dataset, count: int) -> Tensor:
    """Return the first test images as the model takes them, (count, C, H, W)."""
    images, noise = torch.from_numpy(data.test[:count]), noise_of(data)[:count]
    x, _ = model.dequantize(images, torch.from_numpy(noise))
    return x.to(next(model.parameters()).device)


@dataclass(frozen=True)
class RoundTrips:
    """Errors of a model's round trips of images and samples, float32, and its layers' digits.

    Errors are the largest and the mean one, of images in [0, 1) and of noise of deviation 1;
    there are none where no error is finite.
    """

    count: int  # of samples, and of images if so many are there
    image_errors: tuple[float, ...]  # of decode(encode(x)) for test images x
    noise_errors: tuple[float, ...]  # of encode(decode(z)) where the sample is finite
    not_finite: int  # samples
    in_range: int  # samples, in each number
    outside: float | None  # share of the finite samples' numbers that are not in [0, 1)
    digits: float  # decimal digits that `invconv.diagnose` leaves to the layer that has fewest
    layer: str


@torch.no_grad()  # type: ignore[untyped-decorator]
def round_trips(
    model: Multiscale, data: Dataset, count: int, temperature: float = 1.0
) -> RoundTrips:
    """Send test images to noise and back, and noise to samples and back; diagnose all layers."""
    x, grids = images_of_test(model, data, count), dict[str, tuple[int, ...]]()

    def watch(name: str, z: Tensor) -> Tensor:
        return (grids.setdefault(name, z.shape[2:]), z)[1]

    def encode(x: Tensor) -> list[Tensor]:
        parts = (model.encode(some, watch=watch)[0] for some in x.split(_AT_ONCE))
        return [torch.cat(z) for z in zip(*parts, strict=True)]

    def decode(zs: list[Tensor]) -> Tensor:
        parts = zip(*(z.split(_AT_ONCE) for z in zs), strict=True)
        return torch.cat([model.decode(some) for some in parts])

    back = decode(encode(x)) - x
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    zs = [temperature * z for z in model.draw_latents(count, generator)]
    samples = decode(zs)
    finite = torch.isfinite(samples).flatten(1).all(dim=1)
    inside = ((samples >= 0) & (samples < 1)).flatten(1)[finite]
    pairs = zip(encode(samples), zs, strict=True)
    layers = [(n, layer) for n, layer in model.steps() if isinstance(layer, InvertibleModule)]
    digits = {name: diagnose(layer, tuple(grids[name])).digits for name, layer in layers}
    least = min(digits, key=digits.__getitem__)
    return RoundTrips(
        count,
        _largest_and_mean(back.flatten()),
        _largest_and_mean(torch.cat([(z - first)[finite].flatten() for z, first in pairs])),
        int((~finite).sum()),
        int(inside.all(dim=1).sum()),
        float((~inside).double().mean()) if len(inside) else None,
        digits[least],
        least.removeprefix("layers."),
    )


def _largest_and_mean(errors: Tensor) -> tuple[float, ...]:
    found = errors.abs().double()
    usable = len(found) and bool(torch.isfinite(found).all())
    return (float(found.max()), float(found.mean())) if usable else ()


def pixels(model: Multiscale, x: Tensor) -> Floats:
    """Return images (N, C, H, W) as bytes; numbers that are not finite are black."""
    images, _ = model.dequantize.inverse(torch.nan_to_num(x, 0.0, 0.0, 0.0))
    return np.asarray(images.cpu().numpy())
