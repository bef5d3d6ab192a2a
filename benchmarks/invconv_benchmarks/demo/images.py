"""Real images, their tiles, and the picture of what maps make of one."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from skimage import data
from skimage.color import gray2rgb
from skimage.io import imread
from skimage.util import img_as_float64, montage

from invconv.arrays.errors import CommandError
from invconv_benchmarks.report.figures import Floats, save, stretch

TILE = 32


def hubble() -> Floats:
    """Return the Hubble deep field (NASA, public domain) that scikit-image ships, in [0, 1]."""
    return as_rgb(data.hubble_deep_field())


def read(path: Path) -> Floats:
    """Read an image file as RGB in [0, 1]."""
    if not path.is_file():
        raise CommandError(f"--image: expected an image file, but there is no file {path}")
    try:
        pixels = imread(path)
    except Exception as error:  # each image reader raises errors of its own
        raise CommandError(f"--image: {path} cannot be read as an image") from error
    return as_rgb(pixels)


def as_rgb(pixels: Floats) -> Floats:
    """Return (H, W, 3) in [0, 1] from grey, RGB or RGBA pixels of any depth."""
    pixels = gray2rgb(pixels) if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        expected = "expected a grey, RGB or RGBA picture"
        raise CommandError(f"--image: {expected}, got shape {pixels.shape}")
    if pixels.dtype.kind == "f" and not (0 <= pixels.min() <= pixels.max() <= 1):
        raise CommandError("--image: expected floating-point pixels in [0, 1], without NaN")
    if min(pixels.shape[:2]) < TILE:
        expected = f"expected at least {TILE} x {TILE} pixels"
        raise CommandError(f"--image: {expected}, got {pixels.shape[:2]}")
    return np.asarray(img_as_float64(pixels[..., :3]))


def assemble(cut: Floats, image: Floats) -> Floats:
    """Undo `tiles` for tiles of ``image``."""
    shape = image.shape[0] // TILE, image.shape[1] // TILE
    return np.asarray(montage(cut, grid_shape=shape, channel_axis=1))


def draw_demo(image: Floats, panels: dict[str, list[Floats]], path: Path) -> None:
    """Draw, a row per map: the image, the two images of its panel, and the error of the second."""
    size = 13.4, 3.1 * image.shape[0] / image.shape[1] * len(panels) + 0.3
    figure, axes = plt.subplots(len(panels), 4, figsize=size, squeeze=False, layout="compressed")
    for line, (name, (mapped, restored)) in zip(axes, panels.items(), strict=True):
        shown = image[: restored.shape[0], : restored.shape[1]]
        error = np.abs(restored - shown).max(axis=-1)
        line[0].imshow(stretch(shown))
        line[1].imshow(stretch(spread(mapped)))
        line[2].imshow(stretch(restored.clip(0, 1)))
        shades = line[3].imshow(error.clip(1e-8), norm=LogNorm(1e-8, 1e-6), cmap="magma")
        line[0].set_ylabel(name, fontsize=13)
    label = "largest error of a pixel's colours"
    figure.colorbar(shades, ax=axes, shrink=0.6, pad=0.01, label=label)
    plt.setp(axes, xticks=[], yticks=[])
    titles = ("image x, in tiles of 32 x 32", "y = forward(x), contrast stretched",
              "inverse(y), in float32", "|inverse(y) - x|")  # fmt: skip
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    save(figure, path)


def spread(pixels: Floats) -> Floats:
    """Scale values of any range to [0, 1], all but the most extreme of a thousand."""
    low, high = np.quantile(pixels, [0.0005, 0.9995])
    return np.asarray(((pixels - low) / max(high - low, 1e-12)).clip(0, 1))
