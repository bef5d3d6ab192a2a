"""An image turned and zoomed by cubic splines, in PyTorch and in JAX, beside scipy.ndimage.rotate.

`spline_filter` gives the coefficients, `map_coordinates` the spline at the turned points. It is
smooth in the angle and the zoom, so Gauss and Newton's steps find both, with derivatives by
`torch.func` and by `jax`, from an image that was turned by others.
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.ndimage
import torch
from array_api_compat import array_namespace
from skimage.data import camera

from invconv import map_coordinates, spline_filter
from invconv_benchmarks.report import figures

_ANGLE, _ZOOM, _STEPS = 12.0, 1.2, 12
_START = 10.0, 1.15


def turned(c: Any, motion: Any) -> Any:
    """Return the image with coefficients c, turned by an angle in radians and zoomed."""
    xp, centre = array_namespace(c), (c.shape[0] - 1) / 2
    cos, sin = xp.cos(motion[0]) / motion[1], xp.sin(motion[0]) / motion[1]
    along = xp.arange(c.shape[0], dtype=c.dtype) - centre
    row, column = along[:, None], along[None, :]
    points = xp.stack([cos * row + sin * column, cos * column - sin * row]) + centre
    return map_coordinates(c, points, prefilter=False)


def found(wanted: Any, image: Any, start: Any, jacobian: Any) -> list[figures.Floats]:
    """Return the motions of each step to the one that makes ``wanted`` of an image."""
    c, motions = spline_filter(image), [start]
    for _ in range(_STEPS):
        slopes = jacobian(lambda motion: turned(c, motion))(motions[-1])
        off = wanted - turned(c, motions[-1])
        slopes, off = np.asarray(slopes, float).reshape(-1, 2), np.asarray(off, float).reshape(-1)
        step = np.linalg.lstsq(slopes, off)[0]
        motions.append(motions[-1] + array_namespace(c).asarray(step, dtype=c.dtype))
    return [np.asarray(motion, float) for motion in motions]


def draw(out: Path) -> None:
    """Turn an image in both libraries, and find by how much it was turned."""
    image = camera()[64:320, 96:352] / np.float32(255)
    radians, start = np.deg2rad(_ANGLE), np.asarray([np.deg2rad(_START[0]), _START[1]], "f4")
    cos, sin = np.cos(radians) / _ZOOM, np.sin(radians) / _ZOOM
    matrix, centre = np.asarray([[cos, sin], [-sin, cos]]), (np.asarray(image.shape) - 1) / 2
    offset = centre - matrix @ centre
    wanted = scipy.ndimage.affine_transform(image, matrix, offset, mode="mirror")
    rotated = scipy.ndimage.rotate(image, _ANGLE, reshape=False, mode="mirror")
    figure, axes = plt.subplots(1, 4, figsize=(15, 4), layout="constrained")
    figures.show(axes[0], image, "an image", cmap="gray")
    libraries = {
        "PyTorch": (torch.tensor, torch.func.jacfwd, "C0-"),
        "JAX": (jax.numpy.asarray, jax.jacfwd, "C1--"),
    }
    for name, (asarray, jacobian, style) in libraries.items():
        c = spline_filter(asarray(image))
        ours = np.asarray(turned(c, asarray(np.asarray([radians, 1], "f4"))))
        motions = found(asarray(wanted), asarray(image), asarray(start), jacobian)
        angles = np.abs(np.rad2deg([motion[0] for motion in motions]) - _ANGLE)
        print(
            f"{name}: off by {np.abs(ours - rotated).max():.1e} from scipy.ndimage.rotate; "
            f"angle found to {angles[-1]:.1e} degrees, zoom to {abs(motions[-1][1] - _ZOOM):.1e}"
        )
        axes[3].semilogy(angles, style, label=name)
    last = np.asarray(turned(c, asarray(motions[-1].astype("f4"))))
    figures.show(axes[1], last, f"turned by {_ANGLE:g}°, zoomed by {_ZOOM:g}", cmap="gray")
    first = np.asarray(turned(c, asarray(start)))
    figures.show(axes[2], first - wanted, "off by, at the start", cmap="RdBu", vmin=-0.5, vmax=0.5)
    axes[3].set(xlabel="steps of Gauss and Newton", ylabel="error of the angle in degrees")
    axes[3].legend()
    figures.save(figure, out)
