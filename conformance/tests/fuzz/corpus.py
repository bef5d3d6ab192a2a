"""The files that damage starts from: every operator in every dtype, as 0.2.0 wrote it.

They have no checksum, which would refuse all damage before anything else is checked.
"""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Transposed
from invconv_conformance.cases.case import with_bias
from invconv_conformance.laws.state import unsealed


def operators() -> dict[str, ic.InvertibleConv]:
    """Return the operators, of NumPy arrays in float64."""
    rng = np.random.default_rng(0)
    corner = ic.AutoregressiveConv.init(2, 2, 2, direction=(1, -1), dilation=(1, 2), rng=rng)
    raster = ic.AutoregressiveConv.init(2, 2, 2, mask="raster", channel_order="upper", rng=rng)
    emerging = with_bias(ic.EmergingConv.init(2, rng=rng), rng)
    qr = ic.QRConv1x1(np.zeros((0, 2)), np.eye(2), np.ones(2), ndim=2)
    found: dict[str, ic.InvertibleConv] = {
        "corner": corner,
        "raster": raster,
        "emerging": emerging,
        "periodic": with_bias(ic.PeriodicConv.init(2, (2, 3), dilation=(1, 2), rng=rng), rng),
        "conv1x1": with_bias(ic.Conv1x1.init(3, rng=rng), rng),
        "plu": ic.PLUConv1x1.init(3, ndim=1, rng=rng),
        "qr": ic.QRConv1x1.init(3, rng=rng),
        "qr-no-reflectors": qr,
        "actnorm": ic.ActNorm.init(3),
        "transposed": Transposed(emerging),
        "inverse": ic.Inverse(emerging),
        "chain": ic.Chain([ic.PLUConv1x1.init(2, rng=rng), ic.Inverse(corner), qr, emerging]),
        "orthogonal": with_bias(ic.OrthogonalConv1x1.init(3, rng=rng), rng),
        "circulant": with_bias(ic.CirculantConv1x1.init(3, rng=rng), rng),
        "exponential": ic.ExponentialConv.init(2, padding="circular", dilation=(1, 2), rng=rng),
        "symmetric": with_bias(ic.SymmetricConv.init(2, (3, 5), rng=rng), rng),
    }
    return found


@functools.cache
def read() -> tuple[bytes, ...]:
    """Return the files' contents: each operator in float64, and in the other dtypes by turns."""
    import torch

    narrow: list[Any] = [np.empty(0, np.float32), np.empty(0, np.float16)]
    narrow.append(torch.empty(0, dtype=torch.bfloat16))
    contents = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "conv.safetensors"
        for i, conv in enumerate(operators().values()):
            for one in (conv, conv.asarrays(narrow[i % 3])):
                ic.save(one, path)
                contents.append(unsealed(path.read_bytes()))
    return tuple(contents)
