"""Images in the user's files, whose sizes and kinds are checked."""

from __future__ import annotations

import sys
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.data.dataset import Bytes
from invconv_benchmarks.density.data.shipped import planes

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits at most
# what zipfile and NumPy raise for files that are damaged
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
    OSError, ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError, TypeError,
)  # fmt: skip


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, by name; hidden files and others are passed over.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    names = folder.iterdir() if folder.is_dir() else ()
    paths = sorted(p for p in names if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not paths:
        raise FileNotFoundError(f"there are no images in {folder}")
    return paths


def read_usable(folder: Path, smallest: int) -> list[Bytes]:
    """Read a folder's images; standard error names the files that cannot be used."""
    images: list[Bytes] = []
    unusable: list[str] = []
    paths = images_in(folder)
    for path in paths:
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

    Raises
    ------
    CommandError
        That names the file that is no image, is cut off, or has another size.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            right = {width, height} == {side} if exactly else min(width, height) >= side
            if not right:
                least = "" if exactly else "at least "
                raise CommandError(
                    f"expected {least}{side} x {side} pixels, got {width} x {height}"
                )
            if image.mode not in _MODES:
                raise CommandError(f"expected 8 bits a colour, got Pillow's mode {image.mode!r}")
            return planes(np.asarray(image.convert("RGB")))
    except UnidentifiedImageError:
        raise CommandError(f"{path}: not an image of {', '.join(_FORMATS)}") from None
    except (ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path}: {error}") from None
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's for damaged files
        raise CommandError(f"{path}: the image is damaged or cut off: {error}") from None


def read_npz(paths: Sequence[Path], key: str, layout: str, row: tuple[int, ...]) -> Bytes:
    """Read one array of bytes from several npz files, put together along the first axis.

    Parameters
    ----------
    paths : sequence of Path
    key : str
        The array's name in each file.
    layout : str
        Its shape, in words.
    row : tuple of int
        The other axes; -1 for any size, but the same in all files.

    Raises
    ------
    CommandError
        That names the file and says what it holds instead. Nothing in a file is run (no pickle).
    FileNotFoundError
    """
    parts = [_array(path, key, layout, row) for path in paths]
    if len({part.shape[1:] for part in parts}) != 1:
        sizes = [part.shape for part in parts]
        raise CommandError(f"{paths[0].parent}: expected one size in all files, got {sizes}")
    return np.concatenate(parts)


def _array(path: Path, key: str, layout: str, row: tuple[int, ...]) -> Bytes:
    wanted = f"expected an array {key!r} of {layout}"
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            if key not in file.files:
                raise CommandError(f"{path}: {wanted}, but there is none of that name")
            array: Bytes = file[key]
    except (CommandError, FileNotFoundError):
        raise
    except _DAMAGE as error:
        raise CommandError(f"{path}: no npz file, damaged or cut off: {error}") from None
    shape = array.shape[1:]
    fits = len(shape) == len(row) and all(n in (-1, m) for n, m in zip(row, shape, strict=True))
    if array.dtype != np.uint8 or not fits:
        raise CommandError(f"{path}: {wanted}, got {array.dtype} of shape {array.shape}")
    return array
