"""Images in the user's files, whose sizes and kinds are checked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Bytes
from invconv_benchmarks.density.data.shipped import planes

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits at most


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, hidden ones left out, or raise FileNotFoundError."""
    names = folder.iterdir() if folder.is_dir() else ()
    paths = sorted(p for p in names if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not paths:
        raise FileNotFoundError(f"there are no images in {folder}")
    return paths


def read_usable(folder: Path, smallest: int) -> list[Bytes]:
    """Read a folder's images; standard error names the files that cannot be used."""
    images: list[Bytes] = []
    unusable: list[str] = []
    for path in (paths := images_in(folder)):
        try:
            images.append(read(path, smallest))
        except CommandError as error:
            unusable.append(str(error))
    if unusable:
        skipped = f"skipped {len(unusable)} of {len(paths)} files:"
        print(skipped, *unusable, sep="\n  ", file=sys.stderr)
    return images


def read(path: Path, side: int, *, exactly: bool = False) -> Bytes:
    """Read an RGB image, (3, H, W), with at least or exactly so many pixels a side.

    A CommandError names the file that is no image, is cut off, or has another size.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if min(width, height) < side or (exactly and max(width, height) > side):
                least = f"{'' if exactly else 'at least '}{side} x {side}"
                raise CommandError(f"expected {least} pixels, got {width} x {height}")
            if image.mode not in _MODES:
                raise CommandError(f"expected 8 bits a colour, got Pillow's mode {image.mode!r}")
            return planes(np.asarray(image.convert("RGB")))
    except UnidentifiedImageError:
        raise CommandError(f"{path}: not an image of {', '.join(_FORMATS)}") from None
    except (ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path}: {error}") from None
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's for damaged files
        raise CommandError(f"{path}: the image is damaged or cut off: {error}") from None
