"""``invconv demo``: a real image through every kind of convolution, on every installed library."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import invconv as ic
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import to_float, to_numpy
from invconv_benchmarks.demo import images, picture
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.report import figures
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.cases.case import perturbed
from invconv_conformance.libraries.table import LIBRARIES, Target, targets
from invconv_conformance.truth import oracle

Floats = np.ndarray[Any, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--image", type=Path, help="your own image; default: Hubble's deep field")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("invconv-demo.png"),
        help="the picture to write, .png, .jpg, .pdf or .svg (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the kernels (default: 0)")


def check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError before the work starts, not after it."""
    folder = arguments.out.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"--out: there is no folder {folder}")
    if not os.access(folder, os.W_OK) or arguments.out.is_dir():
        raise CommandError(f"--out: {arguments.out} cannot be written")
    if arguments.out.suffix.lower() not in figures.FORMATS:
        raise CommandError(
            f"--out: expected a name that ends in {' or '.join(figures.FORMATS)}, "
            f"got {arguments.out.name!r}"
        )
    if arguments.seed < 0:
        raise CommandError(f"--seed: expected a number of at least 0, got {arguments.seed}")


@dataclass(frozen=True)
class Row:
    """One map on one library, device and dtype."""

    name: str
    target: Target
    dtype: str
    log_det: float
    round_trip: float
    forward: float
    inverse: float


def maps(channels: int, rng: np.random.Generator) -> dict[str, ic.InvertibleConv]:
    """Return the paper's convolutions, moved away from their initialisation."""
    return {
        "emerging 3x3": perturbed(ic.EmergingConv.init(channels, rng=rng), rng, 0.03),
        "periodic 3x3": perturbed(ic.PeriodicConv.init(channels, rng=rng), rng, 0.02),
        "QR 1x1": perturbed(ic.QRConv1x1.init(channels, rng=rng), rng, 0.1),
    }


def run(arguments: argparse.Namespace) -> int:
    """Print the table and write the picture."""
    console = printing.console()
    image = images.hubble() if arguments.image is None else images.read(arguments.image)
    check_options(arguments)
    x = ic.squeeze(images.tiles(image) - 0.5)
    grid = tuple(x.shape[2:])
    console.print(
        f"{arguments.image or 'Hubble deep field'}: {x.shape[0]} tiles of "
        f"{images.TILE} x {images.TILE}, squeezed to {x.shape[1]} x {grid[0]} x {grid[1]}"
    )
    convs = maps(x.shape[1], np.random.default_rng(arguments.seed))
    rows, truth = _measured(convs, x, console)
    for name in convs:
        console.print()
        console.print(report(name, [r for r in rows if r.name == name], truth[name]))
    console.print()
    cores = environment.cores()
    console.print(NOTES.format(cores=f"{cores} core{'s' * (cores > 1)}"), highlight=False)
    for library in LIBRARIES:
        if reason := library.absent():
            console.print(f"not run: {reason}")
    with console.status("drawing"):
        picture.draw_demo(image, _panels(convs, x, image), arguments.out)
    console.print(
        f"[bold]{escape(str(arguments.out))}[/]: the image, its image under each map, and back"
    )
    return 0


def _measured(
    convs: dict[str, ic.InvertibleConv], x: Floats, console: Console
) -> tuple[list[Row], dict[str, float]]:
    """Return the rows of all maps, and the log-determinants of their dense matrices."""
    found, dtypes, truth = targets(), ("float64", "float32"), {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(convs) * (len(found) * len(dtypes) + 1))

        def step(text: str) -> None:
            progress.update(task, advance=1, description=text)

        for name, conv in convs.items():
            step(f"{name}: dense {x[0].size} x {x[0].size} matrix")
            matrix, _ = oracle.affine(conv, tuple(x.shape[2:]))
            truth[name] = float(np.linalg.slogdet(matrix)[1])
        return list(measure(convs, x, found, dtypes, step)), truth


def _panels(
    convs: dict[str, ic.InvertibleConv], x: Floats, image: Floats
) -> dict[str, tuple[Floats, ...]]:
    """Return the image under each map and its reconstruction in float32, by the map's name."""
    panels = {}
    for name, conv in convs.items():
        y = conv.forward(x)
        back = conv.asarrays(np.empty(0, np.float32)).inverse(y.astype(np.float32))
        panels[name] = tuple(images.assemble(ic.unsqueeze(a) + 0.5, image) for a in (y, back))
    return panels


def measure(
    convs: dict[str, ic.InvertibleConv],
    x: Floats,
    found: list[Target],
    dtypes: tuple[str, ...],
    step: Any,
) -> Iterator[Row]:
    """Run every map everywhere."""
    for name, conv in convs.items():
        for dtype in dtypes:
            for target in found:
                step(f"{name}: {target} {dtype}")
                yield measure_one(name, conv, x, target, dtype)


def measure_one(name: str, conv: ic.InvertibleConv, x: Floats, target: Target, dtype: str) -> Row:
    """Run one map on one library, device and dtype."""
    images_there = target.asarray(x, dtype)
    there = conv.asarrays(images_there)
    prepared = there.prepare(tuple(x.shape[2:]))
    library = target.library
    forward, inverse = library.compile(there.forward), library.compile(prepared.inverse)
    y = forward(images_there)
    back = to_numpy(inverse(y))
    return Row(
        name,
        target,
        dtype,
        to_float(there.log_det(tuple(x.shape[2:]))),
        float(np.abs(back - to_numpy(images_there)).max()),
        **timing.medians(
            {
                "forward": lambda: library.synchronise(forward(images_there)),
                "inverse": lambda: library.synchronise(inverse(y)),
            },
            rounds=3,
        ),
    )


def report(name: str, rows: list[Row], truth: float) -> Table:
    """Return the table of one map."""
    table = new(name, ("", "library"), ("log-det", "- dense", "spread", "error", "ms"))
    for i, row in enumerate(rows):
        others = [r.log_det for r in rows if r.dtype == row.dtype]
        first = i == 0 or rows[i - 1].dtype != row.dtype
        table.add_row(
            row.dtype.replace("float", "f") if first else "",
            row.target.title,
            f"{row.log_det:#.{17 if row.dtype == 'float64' else 9}g}",
            f"{row.log_det - truth:+.0e}",
            f"{max(abs(row.log_det - other) for other in others):.0e}",
            f"{row.round_trip:.0e}",
            f"{row.forward * 1e3:.0f}/{row.inverse * 1e3:.0f}",
        )
    return table


NOTES = """\
log-det  of one tile, to full precision
- dense  minus slogdet of the dense float64 matrix of the definition
spread   largest difference from another library in the same dtype
error    largest of |inverse(forward(x)) - x|
ms       forward/inverse, all tiles, median of 3, {cores}, first call apart"""
