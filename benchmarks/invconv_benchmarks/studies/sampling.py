"""The time that samples take: through one layer against the size of the images, and of whole flows.

``benchmarks/README.md`` describes them. Where all passes of a way, which are alike, would take long
some are run, and the time is that of all in proportion.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.markdown import Markdown
from threadpoolctl import threadpool_limits

import invconv_torch as it
from invconv_benchmarks.contenders.operators import Setup, pixel_by_pixel, sparse
from invconv_benchmarks.density.comparison import title
from invconv_benchmarks.density.peers import Autoregressive
from invconv_benchmarks.density.recipe import load_preset
from invconv_benchmarks.density.rows import ROWS
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.report import tables
from invconv_benchmarks.report.figures import save
from invconv_benchmarks.results.result import Document, Verdict, judged, write_document
from invconv_benchmarks.suites import Group
from invconv_conformance.libraries import KNOWN, Target
from invconv_torch.flows import AffineCoupling

SIZES, COUNT = (8, 16, 32, 64, 128, 256), 100
_ENCODE, _LARGE = ": encode", ", L = 3, K = 32, 512 wide"  # the paper's flows of CIFAR-10
_CHANNELS, _WIDTH = 12, 32  # of the layer; inside the networks of the coupling and of MAF
_PATIENCE, _PIXELS, _ROUNDS = 0.3, 2**19, 5  # seconds of passes, pixels of a pass, turns
_CLOCK = time.process_time  # one thread's, which other work on the machine does not lengthen
SCHEMA = "invconv-sampling/1"
CAPTION = "Time for 100 samples: through one layer against the size of the images; whole flows"

EMERGING, COUPLING = "emerging 3×3, this library", "the coupling beside it"
SPARSE, PIXELS = "emerging, SciPy's sparse solve", "emerging, a forward a pixel"
WINDOWS, MAF = "MAF, a window a number", "MAF, a pass a number"
COLORS = {  # the ways through one layer, in the order of the table
    "QR 1×1": "#4c78a8",
    EMERGING: "#e4572e",
    "periodic 3×3": "#2a9d8f",
    COUPLING: "#333333",
    SPARSE: "#f4a259",
    PIXELS: "#8c1c13",
    WINDOWS: "#b58fd6",
    MAF: "#7b4fa3",
}


class ShareOfWork(NamedTuple):
    """A call, and the share of the work for 100 samples that it does."""

    call: timing.Call
    share: float = 1.0


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge our layer beside the other ways, and flows beside their encoding; draw all of it."""
    finished = environment.begin()
    rounds, sizes = (3, SIZES[:3]) if quick else (_ROUNDS, SIZES)
    with threadpool_limits(1), torch.no_grad():
        points = [p for size in sizes for p in _timed(layers(size), size, rounds)]
        flows = _timed(whole(quick), 32, rounds)
    document: Document = {"schema": SCHEMA, **finished(), "points": points, "flows": flows}
    write_document(folder / "sampling.json", document)
    draw(document, folder / "sampling.png")
    Console().print(Markdown("\n".join(block(document))))
    return list(_verdicts(document)), {CAPTION: folder / "sampling.png"}


def _timed(works: Mapping[str, ShareOfWork], size: int, rounds: int) -> list[Document]:
    calls = {way: work.call for way, work in works.items()}
    for call in calls.values():
        call()  # plans and compiles
    return [
        {"way": way, "size": size, "share": works[way].share, "samples": [*map(float, samples)]}
        for way, samples in timing.samples(calls, rounds, warm=0.1, clock=_CLOCK).items()
    ]


def layers(size: int) -> dict[str, ShareOfWork]:
    """Return the ways through one layer, for images of so many pixels a side."""
    torch.manual_seed(0)
    z = torch.randn(COUNT, _CHANNELS, size // 2, size // 2)
    group = Group("inverse", "corner 2", tuple(z.shape), ("inverse",), dtype="float32")
    solve = sparse(Setup(group, Target(KNOWN["numpy"], "cpu")))
    ours: dict[str, Any] = {
        "QR 1×1": it.Conv1x1(_CHANNELS, "qr"),
        EMERGING: it.EmergingConv2d(_CHANNELS),
        "periodic 3×3": it.PeriodicConv2d(_CHANNELS),
        COUPLING: AffineCoupling(_CHANNELS, _WIDTH),
    }
    corner = partial(pixel_by_pixel, Setup(group, Target(KNOWN["torch"], "cpu")))
    images = min(COUNT, max(1, _PIXELS // size**2))
    maf, x = Autoregressive(3, _WIDTH, 0.5), torch.randn(images, 3, size, size)
    return {name: ShareOfWork(partial(layer.eval().inverse, z)) for name, layer in ours.items()} | {
        SPARSE: ShareOfWork(partial(_repeat, 2, solve)),  # a pair is two corners of as many taps
        PIXELS: _some(lambda pixels: partial(_repeat, 2, corner(pixels)), (size // 2) ** 2),
        WINDOWS: ShareOfWork(partial(maf.inverse, torch.randn(COUNT, 3, 8, 8)), 8 * 8 / size**2),
        MAF: _some(
            lambda n: partial(_repeat, n, partial(maf.forward, x)), 3 * size**2, images / COUNT
        ),
    }


def _some(passes: Callable[[int], timing.Call], every: int, share: float = 1.0) -> ShareOfWork:
    """Return as many passes as take the patience, at most all of them."""
    passes(1)()
    some = min(every, max(1, int(_PATIENCE / timing.seconds(passes(1), _CLOCK))))
    return ShareOfWork(passes(some), share * some / every)


def _repeat(times: int, call: timing.Call) -> None:
    for _ in range(times):
        call()


def whole(quick: bool) -> dict[str, ShareOfWork]:
    """Return the work of sampling from each flow of 32 x 32 images, and of encoding as many."""
    small, papers = load_preset("hubble"), load_preset("cifar10")
    flows = {title(row): (small.recipe(row), COUNT, 32) for row in ROWS}
    flows[title("maf")] = small.recipe("maf"), COUNT, 8  # its windows are alike
    if not quick:
        large = ("plain", "emerging")
        flows |= {f"{title(row)}{_LARGE}": (papers.recipe(row), 20, 32) for row in large}
    works, generator = dict[str, ShareOfWork](), torch.Generator().manual_seed(0)
    for name, (recipe, count, size) in flows.items():
        shape, share = (3, size, size), count / COUNT * size**2 / 32**2
        flow, x = recipe.flow(shape).eval(), torch.rand(count, *shape, generator=generator)
        flow.initialize(x)
        works[name] = ShareOfWork(partial(flow.decode, flow.draw_latents(count, generator)), share)
        works[f"{name}{_ENCODE}"] = ShareOfWork(partial(flow.encode, x), share)
    return works


def _samples(point: Document) -> list[list[float]]:
    return [[seconds / point["share"] for seconds in point["samples"]]]


def _seconds(point: Document) -> float:
    return statistics.median(_samples(point)[0])


def _found(points: list[Document]) -> dict[tuple[str, int], Document]:
    return {(point["way"], point["size"]): point for point in points}


def _verdicts(document: Document) -> Iterator[Verdict]:
    points, flows, ours = _found(document["points"]), _found(document["flows"]), title("emerging")
    pairs = [
        ("one emerging layer: time / other ways", points[EMERGING, size], point, 1.0)
        for (way, size), point in points.items()
        if way in (COUPLING, SPARSE, PIXELS, WINDOWS, MAF)
    ] + [
        ("an emerging flow: samples / encoding as many", flows[way, size], point, 1.25)
        for (other, size), point in flows.items()
        if (way := other.removesuffix(_ENCODE)) != other and way.startswith(ours)
    ]
    for limit, mine, other, bound in pairs:
        what = f"{other['size']}×{other['size']}, {other['way']}: {_cell(mine)}, {_cell(other)}"
        yield judged(limit, what, timing.ratio(_samples(mine), _samples(other)), bound)


def _cell(point: Document) -> str:
    """Return a time in words, marked where it is extrapolated."""
    return f"{'≈ ' if point['share'] < 1 else ''}{tables.duration(_seconds(point))}"


def block(document: Document) -> list[str]:
    """Return the lines of the README: both tables, and where and when they were measured."""
    points, flows = _found(document["points"]), _found(document["flows"])
    sizes = sorted({size for _, size in points})
    heads = ("", *(f"{size}×{size}" for size in sizes))
    lines = [(way, *(_cell(points[way, size]) for size in sizes)) for way in COLORS]
    of_flows = [
        (way, _cell(point), _cell(flows[f"{way}{_ENCODE}", size]))
        for (way, size), point in flows.items()
        if _ENCODE not in way
    ]
    return [
        f"{document['environment']['cpu']}, processor time of one thread, float32, "
        f"{environment.told(document, 'numpy', 'scipy', 'torch')}. Time for {COUNT} samples "
        "through one layer by the size of the images; ≈: of a part, in proportion.",
        "",
        *tables.markdown(heads, lines),
        "",
        "Whole flows of images of 32×32, where nothing else is said L = 2, K = 4, 32 wide: time "
        f"for {COUNT} samples, and for encoding as many images.",
        "",
        *tables.markdown(("", "samples", "encoding"), of_flows),
    ]


def draw(document: Document, path: Path) -> None:
    """Write the picture: ways through one layer, hollow where in proportion; whole flows."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12.5, 5.6), width_ratios=[1.75, 1], layout="constrained"
    )
    ends = []
    for way, color in COLORS.items():
        points = [p for p in document["points"] if p["way"] == way]
        sizes, times = [p["size"] for p in points], [_seconds(p) for p in points]
        thick = 3 if way == EMERGING else 1.5
        left.plot(sizes, times, color=color, lw=thick, ls="-" if thick == 3 else "--", zorder=2)
        inside = [color if p["share"] == 1 else "white" for p in points]
        left.scatter(sizes, times, 30, inside, edgecolors=color, zorder=3)
        ends.append((times[-1], way, color, "bold" if thick == 3 else "normal"))
    left.set(xscale="log", yscale="log", xlabel="pixels of an image in colour")
    left.set_xticks(sizes, [f"{size}×{size}" for size in sizes])
    left.set_yticks([n for _, n in tables.UNITS], [f"1 {unit}" for unit, _ in tables.UNITS])
    left.set_title(f"{COUNT} samples through one layer", loc="left")
    low = min(_seconds(p) for p in document["points"])
    left.set_ylim(low / 2, 3 * max(ends)[0])
    place = 0.0
    for seconds, way, color, weight in sorted(ends):
        place = max(place * 2.1, seconds)  # no label upon another
        left.annotate(
            way, (sizes[-1], seconds), (1.15 * sizes[-1], place), color=color, va="center", size=9,
            weight=weight, arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5},
        )  # fmt: skip
    left.grid(alpha=0.3)
    shown = [p for p in document["flows"] if not p["way"].endswith((_ENCODE, _LARGE))]
    colors = [COLORS[EMERGING] if "emerging" in p["way"] else "#b8c4d0" for p in shown]
    times = [_seconds(p) for p in shown]
    right.scatter(times, [p["way"] for p in shown], 60, colors, zorder=2)
    for line, point in enumerate(shown):
        right.annotate(_cell(point), (_seconds(point), line), (8, 0), textcoords="offset points",
                       va="center", size=9)  # fmt: skip
    right.set(xscale="log", xlim=(min(times) / 2, 10 * max(times)))
    right.set_xticks([0.1, 1, 10], ["100 ms", "1 s", "10 s"])
    right.grid(axis="x", alpha=0.3)
    right.invert_yaxis()
    right.set_title(f"{COUNT} samples of a whole flow, 32×32", loc="left")
    for axis in (left, right):
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def headline(document: Document) -> str:
    """Return the sentence of the main README."""
    points = {key: _seconds(point) for key, point in _found(document["points"]).items()}
    ours = {size: seconds for (way, size), seconds in points.items() if way == EMERGING}
    shares = sorted(seconds / points[COUPLING, size] for size, seconds in ours.items())
    most = max(ours)
    pixels, maf = (points[way, most] / ours[most] for way in (PIXELS, WINDOWS))
    return (
        f"**Sampling** through an emerging layer takes {shares[0]:.2g} to {shares[-1]:.2g} of the "
        f"time of the coupling beside it; at {most}×{most} a forward a pixel takes "
        f"about {float(f'{pixels:.2g}'):,.0f} times as long, a masked autoregressive layer "
        f"about {float(f'{maf:.2g}'):,.0f} times: "
        "[chart and tables](benchmarks/README.md#how-long-a-sample-takes)."
    )
