"""``invconv diagnose``: whether the inverse of saved parameters can be trusted, and why not."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.errors import CommandError, as_command_errors
from invconv.operators.base.calls import require_spatial_shape
from invconv_benchmarks.demo import growing
from invconv_benchmarks.options import require_picture

_Shown = tuple[str, ic.InvertibleConv, tuple[int, ...], str | None]

_PICTURED = (
    ("taps -0.3: errors fade", growing.corner(-0.3)),
    ("taps -0.5: errors grow", growing.corner(-0.5)),
    ("the authors' issue", growing.authors()),
)
_GROWTH = """\
z = K x is rounded to float32 and inverted exactly. How many digits of x are left, as diagnose says
and as measured in extended precision: at worst (an error of eps |z| where it harms most), and in
the worst pixel of an image of N(0, 1) numbers, whose error is in the last column.
"""


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
    draw = None if arguments.picture is None else _drawing(arguments.picture)
    if arguments.example == "growth":
        if arguments.grid or arguments.dtype:
            raise CommandError("--grid and --dtype: the growth example has its own, and float32")
        print_growth()
        shown: list[_Shown] = [(t, conv, (32, 32), "float32") for t, conv in _PICTURED]
    else:
        conv, name, dtype = _operator(arguments)
        grid = tuple(arguments.grid or ((32, 32) if arguments.example else ()))
        if not grid and conv.ndim != 0:  # vectors have none
            raise CommandError("--grid: expected pixels along each axis, as in --grid 32 32")
        with as_command_errors():
            require_spatial_shape(conv, grid, "--grid")
        print(ic.diagnose(conv, grid, dtype))
        shown = [(name, conv, grid, dtype)]
    if draw is not None:
        diagnosed = [(t, c, ic.diagnose(c, grid, dtype)) for t, c, grid, dtype in shown]
        draw(diagnosed, arguments.picture)
        print(f"{arguments.picture}: the response of the inverse to an error, and digits left")
    return 0


def _operator(arguments: argparse.Namespace) -> tuple[ic.InvertibleConv, str, str | None]:
    if arguments.example:
        return growing.authors(), "the authors' issue", arguments.dtype or "float32"
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


def _drawing(picture: Path) -> Any:
    """Return the function that draws, or raise where it cannot write such a picture."""
    try:
        from invconv_benchmarks.demo import diagnosis_picture
    except ImportError as error:
        needed = (error.name or "").partition(".")[0]
        raise CommandError(f"--picture needs {needed}: pip install 'invconv[demo]'") from None
    require_picture("--picture", picture)
    return diagnosis_picture.draw


def print_growth() -> None:
    """Print the table of what is lost, predicted and measured."""
    print(_GROWTH)
    print(f"{'':49}   {'at worst':^15}   {'typical':^15}")
    pair = f"{'said':>6} {'measured':>8}"
    print(f"{'kernel':28}{'grid':>10}{'condition':>11}   {pair}   {pair}   {'error':>7}")
    for name, conv, grid in growing.examples():
        d = ic.diagnose(conv, grid, "float32")
        loss = growing.measure(conv, d)
        pairs = (d.worst_float32, loss.worst), (d.digits_float32, loss.typical)
        worst, typical = (f"{said:>6.1f} {measured:>8.1f}" for said, measured in pairs)
        where = f"{name:28}{'{} x {}'.format(*grid):>10}{d.condition:>11.2g}"
        print(f"{where}   {worst}   {typical}   {loss.largest:>7.0e}")
