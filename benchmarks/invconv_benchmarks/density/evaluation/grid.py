"""Samples as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from invconv.arrays.errors import CommandError
from invconv.files.whole_files import replacing
from invconv_benchmarks.report.figures import stretch
from invconv_torch.flows import Dequantize

Tensor: TypeAlias = torch.Tensor


def write(samples: Tensor, path: Path, *, bright: bool = False) -> None:
    """Write samples (N, C, H, W) in rows and columns as a PNG file; what is not finite is black.

    Raises
    ------
    ValueError
        If the file's name does not end in .png.
    OSError
        If it cannot be written.
    """
    if path.suffix != ".png":
        raise CommandError(f"--out: expected a name that ends in .png, got {path}")
    tiles = Dequantize().inverse(torch.nan_to_num(samples, nan=0.0))[0].cpu().numpy()
    count, channels, height, width = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, channels, height, width), np.uint8)
    sheet[:count] = tiles
    sheet = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    pixels = sheet.reshape(rows * height, columns * width, channels)
    if bright:
        pixels = np.asarray(255 * stretch(pixels / 255)).astype(np.uint8)
    with replacing(path) as part:
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(part, format="PNG")
