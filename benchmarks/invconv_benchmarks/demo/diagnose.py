"""``invconv diagnose``: whether the inverse of saved parameters can be trusted, and why not."""

import argparse
import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.errors import CommandError, as_command_errors
from invconv.arrays.namespaces import Shape
from invconv.families import path as paths
from invconv.operators.base import conditions
from invconv.operators.base.calls import require_spatial_shape
from invconv_benchmarks.options import require_picture
from invconv_conformance.truth.oracle import EXTENDED, convolve, substitute

Shown = Sequence[tuple[str, ic.InvertibleConv, ic.Diagnosis]]  # a title, and its diagnosis

_GROWTH = """\
z = K x is rounded to float32 and inverted exactly. How many digits of x are left, as diagnose says
and as measured in extended precision: at worst (an error of eps |z| where it harms most), and in
the worst pixel of an image of N(0, 1) numbers, whose error is in the last column.
"""
_LIMIT = 1e7  # an error of float32's eps times this is as large as the image
_SIZES = 10  # the most grids that a curve has
_COLORS = ("tab:blue", "tab:orange", "tab:red", "tab:green", "tab:purple")


def authors() -> ic.AutoregressiveConv:
    """Return the kernel of "Numerical stability of inverse", open in the authors' repository."""
    kernel = np.asarray([[[[0.0, 0.0462, -1.3683], [0.0, 0.0, 0.0]]]])
    return ic.AutoregressiveConv(kernel, mask="raster", direction=-1)


def corner(tap: float) -> ic.AutoregressiveConv:
    """Return a 2 x 2 corner of one channel: 1 at the pixel, the same tap at the other three."""
    kernel = np.full((1, 1, 2, 2), tap)
    kernel[0, 0, 0, 0] = 1.0
    return ic.AutoregressiveConv(kernel)


def random_corner(channels: int, scale: float, seed: Any = 0) -> ic.AutoregressiveConv:
    """Return a 2 x 2 corner: the identity at the pixel, N(0, scale^2) at the other three."""
    kernel = scale * np.random.default_rng(seed).standard_normal((channels, channels, 2, 2))
    kernel[:, :, 0, 0] = np.eye(channels)
    return ic.AutoregressiveConv(kernel)


_PICTURED = (
    ("taps -0.3: errors fade", corner(-0.3)),
    ("taps -0.5: errors grow", corner(-0.5)),
    ("the authors' issue", authors()),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, help="an operator that invconv.save wrote")
    about = """instead of a file: the kernel of the authors' open issue, or a table of kernels whose
        inverse grows along the image or not, with what is lost, predicted and measured"""
    what.add_argument("--example", choices=("authors", "growth"), help=about)
    about = "pixels along each axis, as in 32 32; vectors have none"
    parser.add_argument("--grid", type=int, nargs="+", metavar="N", help=about)
    dtypes = ("float16", "bfloat16", "float32", "float64")
    about = "in which to invert (default: that of the file)"
    parser.add_argument("--dtype", choices=dtypes, help=about)
    about = "draw the inverse's impulse response, and the digits left against the grid's size"
    parser.add_argument("--picture", type=Path, help=about)


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis, and draw it if asked to."""
    if arguments.picture is not None:
        _require_drawing(arguments.picture)
    if arguments.example == "growth":
        if arguments.grid or arguments.dtype:
            raise CommandError("--grid and --dtype: the growth example has its own, and float32")
        print_growth()
        shown: Shown = [(t, c, ic.diagnose(c, (32, 32), "float32")) for t, c in _PICTURED]
    else:
        conv, name, dtype = _operator(arguments)
        grid = tuple(arguments.grid or ((32, 32) if arguments.example else ()))
        if not grid and conv.ndim != 0:  # vectors have none
            raise CommandError("--grid: expected pixels along each axis, as in --grid 32 32")
        with as_command_errors():
            require_spatial_shape(conv, grid, "--grid")
        shown = [(name, conv, ic.diagnose(conv, grid, dtype))]
        print(shown[0][2])
    if arguments.picture is not None:
        draw(shown, arguments.picture)
        print(f"{arguments.picture}: the response of the inverse to an error, and digits left")
    return 0


def _operator(arguments: argparse.Namespace) -> tuple[ic.InvertibleConv, str, str | None]:
    if arguments.example:
        return authors(), "the authors' issue", arguments.dtype or "float32"
    path = arguments.file
    try:
        return ic.load(path), path.name, arguments.dtype
    except ImportError as error:
        raise CommandError(f"{path} cannot be read: {error}") from None
    except TypeError:  # bfloat16, which NumPy has not; it is solved in float32 anyway; or a flow
        with as_command_errors():
            try:
                return ic.load(path, like=np.empty(0, np.float32)), path.name, arguments.dtype
            except TypeError:
                way = "invconv_torch.load reads it, and diagnose(layer, grid) takes its layers"
                message = f"{path}: expected an operator, got a flow: {way}"
                raise CommandError(message) from None


def _require_drawing(picture: Path) -> None:
    """Raise, before the work starts, where no such picture can be written."""
    try:
        importlib.import_module("invconv_benchmarks.report.figures")
    except ImportError as error:
        needed = (error.name or "").partition(".")[0]
        raise CommandError(f"--picture needs {needed}: pip install 'invconv[demo]'") from None
    require_picture("--picture", picture)


def print_growth() -> None:
    """Print the table of what is lost, predicted and measured."""
    print(_GROWTH)
    print(f"{'':49}   {'at worst':^15}   {'typical':^15}")
    pair = f"{'said':>6} {'measured':>8}"
    print(f"{'kernel':28}{'grid':>10}{'condition':>11}   {pair}   {pair}   {'error':>7}")
    for name, conv, grid in examples():
        d = ic.diagnose(conv, grid, "float32")
        largest, *measured = lost(conv, d)
        pairs = (d.worst_float32, measured[1]), (d.digits_float32, measured[0])
        worst, typical = (f"{said:>6.1f} {measured:>8.1f}" for said, measured in pairs)
        where = f"{name:28}{'{} x {}'.format(*grid):>10}{d.condition:>11.2g}"
        print(f"{where}   {worst}   {typical}   {largest:>7.0e}")


def examples() -> Iterator[tuple[str, ic.AutoregressiveConv, Shape]]:
    """Yield kernels, their names, and grids."""
    for tap in (-0.3, -0.5):
        for n in (8, 32, 64):
            yield f"C = 1, taps {tap}", corner(tap), (n, n)
    for scale, sizes in ((0.1, (16, 128)), (0.2, (16, 64))):
        for n in sizes:
            yield f"C = 12, taps N(0, {scale}²)", random_corner(12, scale), (n, n)
    for n in (2, 4, 32):
        yield "the authors' issue", authors(), (n, n)


def lost(conv: ic.AutoregressiveConv, diagnosis: ic.Diagnosis) -> tuple[float, float, float]:
    """Return the largest error of x from a rounded z, digits left by it, and digits left at worst.

    In extended precision: x is of N(0, 1) numbers, and z = K x rounded to float32, or changed by
    float32's eps |z|_1 where it harms most.
    """
    shape = diagnosis.spatial_shape
    x = np.random.default_rng(0).standard_normal((conv.channels, *shape)).astype(EXTENDED)
    z = convolve(conv, x)
    # K^-1 of the change alone, since K^-1 K x is x
    error = substitute(conv, z.astype(np.float32).astype(EXTENDED) - z)
    unit = np.zeros(x.shape, EXTENDED)
    assert diagnosis.pixel is not None
    unit[(diagnosis.channel, *diagnosis.pixel)] = 1
    absolute = conv.replace(kernel=np.abs(conv.kernel)).transpose()
    columns = convolve(absolute, np.ones(x.shape, EXTENDED))  # their sums, |K|^T 1
    change = 2.0**-23 * columns.max() * substitute(conv, unit)
    largest = np.abs(error).max()
    return float(largest), digits(largest), digits(np.abs(change).sum())


def digits(error: Any) -> float:
    """Return -log10 of an error, at least 0."""
    return max(0.0, -float(np.log10(error))) if error else math.inf


def draw(shown: Shown, path: Path) -> None:
    """Draw the response of each operator's inverse to an impulse, and the digits left by grid."""
    import matplotlib.pyplot as plt

    from invconv_benchmarks.report.figures import save

    count = len(shown)
    figure = plt.figure(figsize=(2.7 * count + 4.8, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.7 * count, 4.8])
    axes = left.subplots(1, count, squeeze=False)[0]
    for axis, (title, conv, diagnosis), color in zip(axes, shown, _COLORS, strict=False):
        shades = _response(axis, conv, diagnosis)
        axis.set_title(title, fontsize=11, color=color)
    place = {"orientation": "horizontal", "fraction": 0.06, "aspect": 16 * count}
    bar = left.colorbar(shades, ax=list(axes), extend="both", **place)
    gap = " " if count > 1 else "\n"
    bar.set_label(f"an error of y at + is multiplied by this{gap}in x (grey: by 0)", fontsize=9)
    _digits(right.subplots(), shown)
    save(figure, path)


def _response(axis: Any, conv: ic.InvertibleConv, diagnosis: ic.Diagnosis) -> Any:
    """Show the largest |x| over the channels, and over the axes before the last two."""
    shape = diagnosis.spatial_shape
    pixel = diagnosis.pixel or tuple(n // 2 for n in shape)  # the middle, if all are alike
    unit = np.zeros((1, conv.channels, *shape))
    unit[(0, diagnosis.channel or 0, *pixel)] = 1.0
    with np.errstate(all="ignore"):
        path = paths.linear(conv.asarrays(unit)._path())
        response = np.abs(conditions.linear_maps(path, shape)[1](unit)[0])
    response = np.where(np.isfinite(response), response, np.inf)  # an overflow
    image = response.reshape(-1, *(1, 1, *shape)[-2:]).max(axis=0)
    image = np.where(image > 0, image.clip(1 / _LIMIT, _LIMIT), np.nan)
    row, column = (0, 0, *pixel)[-2:]
    scale: dict[str, Any] = {"norm": "log", "vmin": 1 / _LIMIT, "vmax": _LIMIT, "cmap": "RdBu_r"}
    shades = axis.imshow(image, aspect="auto" if len(shape) == 1 else "equal", **scale)
    axis.plot(column, row, "k+", ms=9, mew=2)
    axis.set(xticks=[], yticks=[], facecolor="0.85")  # which shows through NaN
    digits = getattr(diagnosis, f"worst_{diagnosis.precision}")
    left = f"{digits:.1f} digits left in {diagnosis.precision} at worst"
    caption = f"{' x '.join(map(str, shape)) or 1}: condition {diagnosis.condition:.2g}\n{left}"
    axis.set_xlabel(caption, fontsize=9)
    return shades


def _digits(axis: Any, shown: Shown) -> None:
    axis.axhspan(0, 2, color="0.88")
    where = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
    axis.text(0.98, 1, "the inverse warns", fontsize=9, **where)
    for (_, conv, diagnosis), color in zip(shown, _COLORS, strict=False):
        grids = _grids(diagnosis.spatial_shape)
        sides = [max(grid, default=1) for grid in grids]
        diagnoses = [ic.diagnose(conv, g, diagnosis.precision) for g in grids]
        axis.plot(sides, [d.worst_float64 for d in diagnoses], "o--", color=color, lw=1.5, ms=3)
        axis.plot(sides, [d.worst_float32 for d in diagnoses], "o-", color=color, lw=2, ms=3)
    axis.plot([], [], "k-", lw=2, label="in float32")
    axis.plot([], [], "k--", lw=1.5, label="in float64")
    axis.set(xlabel="pixels along the longest axis", ylim=(0, 18.5), yticks=range(0, 17, 2))
    axis.set_title("digits left at worst", fontsize=11)
    axis.set_xlim(left=1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper center", ncols=2, frameon=False)


def _grids(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    longest = max(shape, default=1)
    some = np.concatenate([np.arange(1, 8), np.linspace(1, longest, _SIZES)])
    sides = np.unique(some[some <= longest].round().astype(int))
    return [tuple(max(1, round(n * int(side) / longest)) for n in shape) for side in sides]
