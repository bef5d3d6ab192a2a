"""``invconv demo``: a real image through every kind of convolution, on every installed library."""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from skimage import data
from skimage.color import gray2rgb
from skimage.exposure import rescale_intensity
from skimage.io import imread
from skimage.util import img_as_float64, montage

import invconv as ic
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import to_float, to_numpy
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.options import require_picture
from invconv_benchmarks.report.figures import Floats, save, stretch, tiles
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.cases.table import perturbed
from invconv_conformance.libraries import LIBRARIES, Target, targets
from invconv_conformance.truth import oracle

_TILE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--image", type=Path, help="your own image; default: Hubble's deep field")
    about = "the picture to write, .png, .jpg, .pdf or .svg (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-demo.png"), help=about)
    parser.add_argument("--seed", type=int, default=0, help="seed of the kernels (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each map and write the picture."""
    console = printing.console()
    image = read(arguments.image)
    require_picture("--out", arguments.out)
    if arguments.seed < 0:
        raise CommandError(f"--seed: expected a number of at least 0, got {arguments.seed}")
    x = ic.squeeze(tiles(np.moveaxis(image, -1, 0), _TILE) - 0.5)
    name = escape(str(arguments.image or "Hubble deep field"))
    console.print(
        f"{name}: {x.shape[0]} tiles of {_TILE} x "
        f"{_TILE}, squeezed to {x.shape[1]} x {x.shape[2]} x {x.shape[3]}"
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
        panels, shape = {}, tuple(n // _TILE for n in image.shape[:2])
        for name, conv in convs.items():
            y = conv.forward(x)
            back = conv.asarrays(np.empty(0, np.float32)).inverse(y.astype(np.float32))
            pair = (ic.unsqueeze(a) + 0.5 for a in (y, back))
            panels[name] = [montage(cut, grid_shape=shape, channel_axis=1) for cut in pair]
        draw(image, panels, arguments.out)
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
    compiled = Target(library, target.device, library.usual_mode).compile
    forward, inverse = compiled(map_there.forward), compiled(map_there.prepare(grid).inverse)
    y = forward(there)
    error = float(np.abs(to_numpy(inverse(y)) - to_numpy(there)).max())
    calls = {
        "forward": lambda: library.synchronise(forward(there)),
        "inverse": lambda: library.synchronise(inverse(y)),
    }
    times = "/".join(f"{1e3 * s:.0f}" for s in timing.medians(calls, rounds=3).values())
    return to_float(map_there.log_det(grid)), error, times


def read(path: Path | None) -> Floats:
    """Return an image file, or the Hubble deep field (NASA, public domain), as RGB in [0, 1]."""
    if path is not None and not path.is_file():
        raise CommandError(f"--image: expected an image file, but there is no file {path}")
    try:
        pixels = data.hubble_deep_field() if path is None else imread(path)
    except Exception as error:  # each image reader raises errors of its own
        raise CommandError(f"--image: {path} cannot be read as an image") from error
    pixels = gray2rgb(pixels) if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        expected = "expected a grey, RGB or RGBA picture"
        raise CommandError(f"--image: {expected}, got shape {pixels.shape}")
    if pixels.dtype.kind == "f" and not (0 <= pixels.min() <= pixels.max() <= 1):
        raise CommandError("--image: expected floating-point pixels in [0, 1], without NaN")
    if min(pixels.shape[:2]) < _TILE:
        expected = f"expected at least {_TILE} x {_TILE} pixels"
        raise CommandError(f"--image: {expected}, got {pixels.shape[:2]}")
    return np.asarray(img_as_float64(pixels[..., :3]))


def draw(image: Floats, panels: dict[str, list[Floats]], path: Path) -> None:
    """Draw, a row per map: the image, the two images of its panel, and the error of the second."""
    size = 13.4, 3.1 * image.shape[0] / image.shape[1] * len(panels) + 0.3
    figure, axes = plt.subplots(len(panels), 4, figsize=size, squeeze=False, layout="compressed")
    for line, (name, (mapped, restored)) in zip(axes, panels.items(), strict=True):
        shown = image[: restored.shape[0], : restored.shape[1]]
        error = np.abs(restored - shown).max(axis=-1)
        line[0].imshow(stretch(shown))
        most = tuple(np.quantile(mapped, [0.0005, 0.9995]))  # but the extreme ones of a thousand
        line[1].imshow(stretch(rescale_intensity(mapped, most, (0.0, 1.0))))
        line[2].imshow(stretch(restored.clip(0, 1)))
        shades = line[3].imshow(error.clip(1e-8), norm="log", vmin=1e-8, vmax=1e-6, cmap="magma")
        line[0].set_ylabel(name, fontsize=13)
    label = "largest error of a pixel's colours"
    figure.colorbar(shades, ax=axes, shrink=0.6, pad=0.01, label=label)
    plt.setp(axes, xticks=[], yticks=[])
    titles = ("image x, in tiles of 32 x 32", "y = forward(x), contrast stretched",
              "inverse(y), in float32", "|inverse(y) - x|")  # fmt: skip
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    save(figure, path)


_NOTES = """
log-det  of one tile, to full precision
- dense  minus slogdet of the dense float64 matrix of the definition
spread   largest difference from another library in the same dtype
error    largest of |inverse(forward(x)) - x|
ms       forward/inverse, all tiles, median of 3, {cores}, first call apart"""
