"""Products with a matrix per frequency by the compiled kernel, on arrays in host memory.

    x_hat(f) = A(f) y_hat(f)

The lanes are images. A channel's plane, a vector a pixel, is transformed in place, axis by axis, by
products with real matrices. Then some pairs of results are replaced by their difference and their
sum. After that every frequency is one number, or two: a real and an imaginary part.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from invconv.arrays.stencil import dot
from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.geometry import Shape, blocks_of
from invconv.kernels.cpu.program import (
    Assembled,
    Floats,
    Ints,
    addresses,
    numbers_of,
    size,
    tap_list,
)

if TYPE_CHECKING:  # llvmlite may be missing
    from invconv.kernels.cpu.compiler.ir import Arguments, Int, Numbers, Value, Writer


@dataclass(frozen=True, eq=False)
class RealTransform:
    """The transform of images on a grid to frequencies, in real arithmetic, in place."""

    there: tuple[Floats, ...]  # shape (n, n): the matrix along each axis
    back: tuple[Floats, ...]  # its inverse but for a power of two (`scale`)
    # shape (P, 2): Flat places (u, v) that become u - v and u + v, one pair after the other. The
    # way back does the same with v and u exchanged, from the last pair to the first, and doubles
    # them.
    pairs: Ints
    # shape (E, 2): places of the real and the imaginary part of each number; of real numbers, which
    # come first, -1
    places: Ints
    frequencies: Ints  # shape (E,): the frequency of each number
    scale: Floats  # shape (E,): the factor of each number before the way back

    @property
    def reals(self) -> int:
        return int(np.count_nonzero(self.places[:, 1] < 0))


@dataclass(frozen=True)
class Blocks:
    """Blocks of outputs; the sums of a block are in registers."""

    count: int
    block: int  # outputs of a block

    @property
    def size(self) -> int:
        """The number of outputs of all blocks, padding included."""
        return self.count * self.block

    def packed(self, taps: Sequence[Floats]) -> Floats:
        """Return taps (N, outputs, inputs) as (N, blocks, taps, inputs, outputs of a block)."""
        number, outputs, inputs = taps[0].shape
        padded = np.zeros((len(taps), number, inputs, self.count, self.block), taps[0].dtype)
        padded.reshape(len(taps), number, inputs, -1)[..., :outputs] = np.swapaxes(taps, 2, 3)
        return padded.transpose(1, 3, 0, 2, 4)


@dataclass(frozen=True)
class SpectralHeader:
    """The settings of all units. Distances and places are in the buffer unless said otherwise."""

    channels: int
    pixels: int
    channel_step: int
    step: int  # from the first half, where images enter, to the second, from which they leave
    spare: int  # place of a pixel's sums
    size: int  # of the buffer
    stages: int  # of a transform
    back: int  # place of the way back's matrices among the matrices of the axes
    pairs: int
    outputs: int  # number of real and imaginary parts
    sums: int  # the address of the function that sums over channels
    # places in the program of the stages, of the pairs, of the outputs' records of `OUTPUT`
    # numbers, and of the list of one tap for `invconv.kernels.cpu.sums`
    axes: int = 0
    paired: int = 0
    multiplied: int = 0
    one: int = 0


@dataclass(frozen=True)
class Stage:
    """The transform of a plane along one axis: lines in rows of adjacent columns."""

    channels: int  # points of the axis
    channel_step: int  # from one point to the next
    rows: int
    row_step: int
    columns: int
    weights: int  # place of its matrix among the matrices of the transforms
    sums: int  # the address of the function that sums over points


OUTPUT = 8  # numbers of the record of a real or an imaginary part: see `_outputs`


def program(
    channels: int,
    shape: Shape,
    transform: RealTransform,
    blocks: Sequence[Blocks],
    sums: Sequence[int],
    lanes: int,
    itemsize: int,
) -> Assembled[SpectralHeader]:
    """Return the program.

    For each axis, and then for the channels, there are the ``blocks`` of the sums, and the address
    of the function that computes these ``sums``.
    """
    pixels = math.prod(shape)
    plane = costs.apart(pixels * lanes, itemsize)
    spare = 2 * channels * plane
    header = SpectralHeader(
        channels=channels,
        pixels=pixels,
        channel_step=plane,
        step=channels * plane,
        spare=spare,
        size=spare + max(b.size for b in blocks) * lanes,
        stages=len(shape),
        back=dot(shape, (b.size for b in blocks)),
        pairs=len(transform.pairs),
        outputs=transform.places.size - transform.reals,
        sums=sums[-1],
    )
    sections = {
        "axes": numbers_of(_stages(shape, blocks, sums, lanes)),
        "paired": transform.pairs.reshape(-1) * lanes,
        "multiplied": list(_outputs(channels, transform, blocks[-1], lanes)),
        "one": tap_list([(0, 0)], 1, 0),
    }
    return Assembled.of(header, sections)


def _stages(
    shape: Shape, blocks: Sequence[Blocks], sums: Sequence[int], lanes: int
) -> Iterator[Stage]:
    weights = 0
    for axis, n in enumerate(shape):
        rows, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        yield Stage(n, rest * lanes, rows, n * rest * lanes, rest, weights, sums[axis])
        weights += n * blocks[axis].size


def _outputs(channels: int, transform: RealTransform, blocks: Blocks, lanes: int) -> Iterator[int]:
    """Yield each output's record: place, number of taps, place of weights, and list of taps."""
    weights = 0
    for real, imag in (transform.places * lanes).tolist():
        parts = [real] if imag < 0 else [real, imag]
        for here in parts:
            taps = [(t, there - here) for t, there in enumerate(parts)]
            yield from (here, len(parts), weights, *tap_list(taps, 2, blocks.block * channels))
            weights += len(parts) * blocks.size * channels


@dataclass(frozen=True, eq=False)
class CompiledProduct:
    """The map y -> x with x_hat(f) = A(f) y_hat(f) on a grid."""

    program: Assembled[SpectralHeader]
    transforms: Floats  # the matrices of the axes
    blocks: Blocks  # blocks of channels
    lanes: int
    itemsize: int
    seconds: float  # about how long the images in the lanes of a vector take
    code: machine.Code
    sums: list[machine.Code]  # functions that the code calls
    # the matrices of the frequencies, as `invconv.kernels.cpu.sums` reads them
    weights: Floats = field(default_factory=lambda: np.empty(0))

    @functools.cached_property
    def images(self) -> tuple[int, int, int]:
        """The channels, pixels and bytes a number of an image, for `require_images`."""
        return self.program.header.channels, self.program.header.pixels, self.itemsize

    def run(self, y: int, x: int, batch: int, workers: int, *keeps: object) -> None:
        """Map images at the address ``y`` to ``x``; see `cpu.compiled.CompiledSolve.run`."""
        units = -(-batch // self.lanes)
        workers = min(units, costs.threads(workers, units * self.seconds))
        shared = ctypes.c_int64()  # the ticket
        arrays = *addresses(self.transforms, self.weights), self.program.address
        given = y, x, *arrays, ctypes.addressof(shared)

        size = self.program.header.size * self.itemsize
        in_buffers(size, workers, self.code.call, given, (batch,), (self, shared, keeps))


def along(points: int, most: int) -> tuple[int, int]:
    """Return how many blocks of 8 or 16 an axis has: axes of any length share the compiled code."""
    few, many = -(-points // 8), -(-points // 16)
    return (many, 16) if most >= 16 and 5 * 2 * many <= 6 * few else (few, 8)


@functools.lru_cache(maxsize=64)
def _without(
    channels: int, shape: Shape, transform: RealTransform, itemsize: int, target: Target
) -> CompiledProduct:
    """Compile a product on a grid without matrices of the frequencies."""
    lanes, most = target.lanes(itemsize), costs.SUMS[target.registers]
    blocks = [*(Blocks(*along(n, most)) for n in shape), Blocks(*blocks_of(channels, most))]
    single = [*[False] * len(shape), blocks[-1].count == 1]
    settings = zip([b.block for b in blocks], single, strict=True)
    code = [machine.sums(target, itemsize, "images", *block) for block in settings]
    sums = [c.address for c in code]
    axes = [*zip(blocks, transform.there, strict=False), *zip(blocks, transform.back, strict=False)]
    transforms = np.concatenate([b.packed([m[None]]).reshape(-1) for b, m in axes])
    products = 2 * sum(shape) + (1 if transform.reals == len(transform.places) else 2) * channels
    return CompiledProduct(
        program(channels, shape, transform, blocks, sums, lanes, itemsize),
        transforms.astype(f"f{itemsize}"),
        blocks[-1],
        lanes,
        itemsize,
        costs.seconds(lanes * channels * math.prod(shape), products, itemsize, target),
        machine.compiled(target, itemsize, _write),
        code,
    )


def compiled_product(
    matrices: Floats, shape: Shape, transform: RealTransform, target: Target | None = None
) -> CompiledProduct:
    """Return the product with real or complex matrices (F, C, C), in their precision."""
    channels, number = matrices.shape[1], matrices.real.dtype
    shared = _without(channels, tuple(shape), transform, number.itemsize, target or host())
    chosen = matrices[transform.frequencies] * transform.scale[:, None, None].astype(number)
    first, blocks = transform.reals, shared.blocks
    parts = [blocks.packed([chosen.real[:first]])]
    if first < len(chosen):
        real, imag = chosen.real[first:], chosen.imag[first:]
        parts.append(np.stack([blocks.packed(p) for p in ([real, -imag], [imag, real])], axis=1))
    return replace(shared, weights=np.concatenate([part.reshape(-1) for part in parts]))


def prefers_kernel(batch: int, channels: int, shape: Shape, itemsize: int) -> bool:
    """Tell whether the compiled kernel runs here and is faster than FFTs.

    Its transforms take n products a number along an axis of n points, and its last vector of images
    may be partly idle.
    """
    if machine.reason(itemsize) is not None:
        return False
    lanes = host().lanes(itemsize)
    image, filled = channels * math.prod(shape), -(-batch // lanes) * lanes
    products = filled * image * 2 * (sum(shape) + channels)
    if products > costs.AN_FFT * batch * image + costs.A_CALL:
        return False
    # the buffer mostly stays in the cache, and preparing few matrices is quick
    return max(2 * lanes * image, 4 * channels * image) * itemsize <= costs.FREQUENCIES


def _write(w: Writer) -> None:
    """Write the function "product" of pointers and the number of images.

    ``transforms`` and ``weights`` are the matrices of the axes and of the frequencies. The other
    arguments are as for "solve" of `invconv.kernels.cpu.loop`.
    """
    from invconv.kernels.cpu.copies import write_copies
    from invconv.kernels.cpu.loop import each_unit

    write_copies(w, "wholes")
    pointers = "y x transforms weights program shared z"
    with w.function("product", pointers, "images", inside=False) as a:
        h = w.record(SpectralHeader, a["program"])
        with each_unit(w, a["shared"], a["images"].over(w.lanes)) as taken:
            a["image"] = taken * w.lanes
            with w.loop(0, h["channels"]) as c:
                plane = w.at(a["z"], c * h["channel_step"])
                _copy(w, a, h, "enter", a["y"], c, plane)
                _transform(w, a, h, plane, 0)
                with w.loop(0, h["pairs"]) as i:
                    _turn(w, a, plane, h["paired"] + i * 2, 0)
            _multiply(w, a, h)
            with w.loop(0, h["channels"]) as c:
                plane = w.at(a["z"], h["step"] + c * h["channel_step"])
                with w.loop(0, h["pairs"]) as i:
                    _turn(w, a, plane, h["paired"] + (h["pairs"] - 1 - i) * 2, 1)
                _transform(w, a, h, plane, h["back"])
                _copy(w, a, h, "leave", a["x"], c, plane)


def _copy(
    w: Writer, a: Arguments, h: Numbers, way: str, images: Value, c: Int, plane: Value
) -> None:
    w.call_inside(
        way,
        lines=w.at(images, (a["image"] * h["channels"] + c) * h["pixels"]),
        z=plane,
        step=w.lanes,
        lines_there=(a["images"] - a["image"]).least(w.lanes),
        line_step=h["channels"] * h["pixels"],
        count=h["pixels"],
        width=h["pixels"],
        channels=1,
    )


def _transform(w: Writer, a: Arguments, h: Numbers, plane: Value, first: Int | int) -> None:
    from invconv.kernels.cpu.sums import SIGNATURE

    with w.loop(0, h["stages"]) as i:
        s = w.record(Stage, a["program"], h["axes"] + i * size(Stage))
        given = {
            "z": plane,
            "out": plane,
            "w": w.at(a["transforms"], s["weights"] + first),
            "spare": w.at(a["z"], h["spare"]),
            "lists": w.entries(a["program"], h["one"]),
            "at": 0,
            "column_step": w.lanes,
            "taps": 1,
        }
        w.call_outside(w.address(s["sums"]), SIGNATURE, s, **given)


def _turn(w: Writer, a: Arguments, plane: Value, start: Int, first: int) -> None:
    """Write (u, v) -> (u - v, u + v) for a pair of places; u is the one with index ``first``."""
    places = [w.entry(a["program"], start + i) for i in (first, 1 - first)]
    u, v = (w.load(plane, place) for place in places)
    w.store(w.b.fsub(u, v), plane, places[0])
    w.store(w.b.fadd(u, v), plane, places[1])


def _multiply(w: Writer, a: Arguments, h: Numbers) -> None:
    """Write the product with a matrix per frequency, from the buffer's first half to the second."""
    from invconv.kernels.cpu.sums import SIGNATURE

    function = w.address(h["sums"])
    with w.loop(0, h["outputs"]) as i:
        start = h["multiplied"] + i * OUTPUT
        here, taps, weights = (w.entry(a["program"], start + k) for k in range(3))
        given = {
            "z": a["z"],
            "out": w.at(a["z"], h["step"]),
            "w": w.at(a["weights"], weights),
            "spare": w.at(a["z"], h["spare"]),
            "lists": w.entries(a["program"], start + 3),
            "at": here,
            "rows": 1,
            "columns": 1,
            "taps": taps,
        }
        w.call_outside(function, SIGNATURE, h, **given)
