"""``invconv demo``: a real image through every kind of convolution, on every installed library."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import invconv as ic
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import to_float, to_numpy
from invconv_benchmarks.demo import images
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.options import require_picture
from invconv_benchmarks.report.figures import Floats, tiles
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.cases.table import perturbed
from invconv_conformance.libraries.table import LIBRARIES, Target, targets
from invconv_conformance.truth import oracle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--image", type=Path, help="your own image; default: Hubble's deep field")
    about = "the picture to write, .png, .jpg, .pdf or .svg (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-demo.png"), help=about)
    parser.add_argument("--seed", type=int, default=0, help="seed of the kernels (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each map and write the picture."""
    console = printing.console()
    image = images.hubble() if arguments.image is None else images.read(arguments.image)
    require_picture("--out", arguments.out)
    if arguments.seed < 0:
        raise CommandError(f"--seed: expected a number of at least 0, got {arguments.seed}")
    x = ic.squeeze(tiles(np.moveaxis(image, -1, 0), images.TILE) - 0.5)
    name = escape(str(arguments.image or "Hubble deep field"))
    console.print(
        f"{name}: {x.shape[0]} tiles of {images.TILE} x "
        f"{images.TILE}, squeezed to {x.shape[1]} x {x.shape[2]} x {x.shape[3]}"
    )
    convs = _maps(x.shape[1], np.random.default_rng(arguments.seed))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(convs) * (2 * len(targets()) + 1))
        step = lambda text: progress.update(task, advance=1, description=text)  # noqa: E731
        tables = [_table(name, conv, x, step) for name, conv in convs.items()]
    for table in tables:
        console.print("", table, sep="\n")
    cores = environment.cores()
    console.print(_NOTES.format(cores=f"{cores} core{'s' * (cores > 1)}"), highlight=False)
    for reason in filter(None, (library.absent() for library in LIBRARIES)):
        console.print(f"not run: {reason}")
    with console.status("drawing"):
        panels = {}
        for name, conv in convs.items():
            y = conv.forward(x)
            back = conv.asarrays(np.empty(0, np.float32)).inverse(y.astype(np.float32))
            panels[name] = [images.assemble(ic.unsqueeze(a) + 0.5, image) for a in (y, back)]
        images.draw_demo(image, panels, arguments.out)
    out = escape(str(arguments.out))
    console.print(f"[bold]{out}[/]: the image, its image under each map, and back")
    return 0


def _maps(channels: int, rng: np.random.Generator) -> dict[str, ic.InvertibleConv]:
    return {
        "emerging 3x3": perturbed(ic.EmergingConv.init(channels, rng=rng), rng, 0.03),
        "periodic 3x3": perturbed(ic.PeriodicConv.init(channels, rng=rng), rng, 0.02),
        "QR 1x1": perturbed(ic.QRConv1x1.init(channels, rng=rng), rng, 0.1),
    }


def _table(name: str, conv: ic.InvertibleConv, x: Floats, step: Callable[[str], None]) -> Table:
    step(f"{name}: dense {x[0].size} x {x[0].size} matrix")
    truth = float(np.linalg.slogdet(oracle.affine(conv, tuple(x.shape[2:]))[0])[1])
    table = new(name, ("", "library"), ("log-det", "- dense", "spread", "error", "ms"))
    for dtype, digits in ("float64", 17), ("float32", 9):
        rows = []
        for target in targets():
            step(f"{name}: {target} {dtype}")
            rows.append((target.title, *_measured(conv, x, target, dtype)))
        for i, (title, log_det, error, times) in enumerate(rows):
            table.add_row(
                "" if i else dtype.replace("float", "f"),
                title,
                f"{log_det:#.{digits}g}",
                f"{log_det - truth:+.0e}",
                f"{max(abs(log_det - row[1]) for row in rows):.0e}",
                f"{error:.0e}",
                times,
            )
    return table


def _measured(
    conv: ic.InvertibleConv, x: Floats, target: Target, dtype: str
) -> tuple[float, float, str]:
    there, grid, library = target.asarray(x, dtype), tuple(x.shape[2:]), target.library
    map_there = conv.asarrays(there)
    forward = library.compile(map_there.forward)
    inverse = library.compile(map_there.prepare(grid).inverse)
    y = forward(there)
    error = float(np.abs(to_numpy(inverse(y)) - to_numpy(there)).max())
    calls = {
        "forward": lambda: library.synchronise(forward(there)),
        "inverse": lambda: library.synchronise(inverse(y)),
    }
    times = "/".join(f"{1e3 * s:.0f}" for s in timing.medians(calls, rounds=3).values())
    return to_float(map_there.log_det(grid)), error, times


_NOTES = """
log-det  of one tile, to full precision
- dense  minus slogdet of the dense float64 matrix of the definition
spread   largest difference from another library in the same dtype
error    largest of |inverse(forward(x)) - x|
ms       forward/inverse, all tiles, median of 3, {cores}, first call apart"""
