"""Products with a matrix a frequency by the compiled kernel, on arrays in host memory.

    x_hat(f) = A(f) y_hat(f)

`compiled_product` prepares the matrices.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.assembly import Ints
from invconv.kernels.cpu.compiled import address_of, in_buffers, require_images
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.cpu.spectral.product_program import Blocks, Header, RealTransform, program

Floats = np.ndarray[Any, Any]

_PRODUCT = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int64)
_LARGEST = 2**24  # bytes of a buffer, or of matrices


@dataclass(frozen=True, eq=False)
class Frame:
    """A compiled product on a grid without the matrices of the frequencies."""

    transform: RealTransform
    header: Header
    # the program, and the matrices of the axes
    numbers: Ints
    transforms: Floats
    blocks: Blocks  # blocks of channels
    lanes: int
    itemsize: int
    seconds: float  # about how long the images in the lanes of a vector take
    call: Any  # the compiled function
    code: tuple[machine.Code, ...]  # owners of the functions' memory


@functools.lru_cache(maxsize=64)
def frame(
    channels: int,
    shape: Shape,
    transform: RealTransform,
    itemsize: int,
    target: Target | None = None,
) -> Frame:
    """Compile products on a grid, for any matrices of the frequencies."""
    target = target or host()
    lanes = target.bits // 8 // itemsize
    most = target.most_channels
    blocks = [*(Blocks.along(n, most) for n in shape), Blocks.of(channels, most)]
    code = [machine.sums(target, itemsize, "images", b.block, False) for b in blocks[:-1]]
    code.append(machine.sums(target, itemsize, "images", blocks[-1].block, blocks[-1].count == 1))
    sums = [c.address for c in code]
    header, numbers = program(channels, shape, transform, blocks, sums, lanes, itemsize)
    axes = [*zip(blocks, transform.there, strict=False), *zip(blocks, transform.back, strict=False)]
    transforms = np.concatenate([b.packed([m[None]]).reshape(-1) for b, m in axes])
    main = _code(target, itemsize)
    size = lanes * channels * header.pixels
    products = 2 * sum(shape) + (1 if transform.reals == len(transform.places) else 2) * channels
    return Frame(
        transform,
        header,
        numbers,
        transforms.astype(f"f{itemsize}"),
        blocks[-1],
        lanes,
        itemsize,
        costs.seconds(size, products, itemsize, target),
        _PRODUCT(main.address),
        (main, *code),
    )


@functools.lru_cache(maxsize=8)
def _code(target: Target, itemsize: int) -> machine.Code:
    from invconv.kernels.cpu.spectral.product_loop import write_product

    return machine.compiled(target, itemsize, "product", write_product)


@dataclass(frozen=True, eq=False)
class CompiledProduct:
    """The map y -> x with x_hat(f) = A(f) y_hat(f)."""

    frame: Frame
    weights: Floats  # the matrices, in the layout of `invconv.kernels.cpu.sums`

    def require(self, shape: Shape, itemsize: int) -> None:
        """Raise ValueError unless images fit the program: the kernel itself checks no shape."""
        h = self.frame.header
        require_images((h.channels, h.pixels, self.frame.itemsize), shape, itemsize)

    def run(self, y: int, x: int, batch: int, workers: int, *keeps: object) -> None:
        """Map images at the address ``y``, and put the results at ``x``.

        The other arguments are as for `invconv.kernels.cpu.compiled.CompiledSolve.solve`.
        """
        f = self.frame
        units = -(-batch // f.lanes)
        if workers > 1:
            workers = min(workers, units) if units * f.seconds >= costs.SHARED else 1
        shared = ctypes.c_int64()  # the ticket
        arrays = map(address_of, (f.transforms, self.weights, f.numbers))
        given = y, x, *arrays, ctypes.addressof(shared)

        def work(z: int) -> None:
            f.call(*given, z, batch)

        in_buffers(work, f.header.size * f.itemsize, workers, self, shared, keeps)


def compiled_product(
    matrices: Floats,
    shape: Shape,
    transform: RealTransform,
    target: Target | None = None,
) -> CompiledProduct:
    """Return the product with a matrix a frequency, in the precision of the matrices.

    ``matrices`` (F, C, C) are real or complex. The target is this processor unless given.
    """
    channels, number = matrices.shape[1], matrices.real.dtype
    shared = frame(channels, tuple(shape), transform, number.itemsize, target)
    chosen = matrices[transform.frequencies] * transform.scale[:, None, None].astype(number)
    first, blocks = transform.reals, shared.blocks
    parts = [blocks.packed([chosen.real[:first]])]
    if first < len(chosen):
        real, imag = chosen.real[first:], chosen.imag[first:]
        pairs = blocks.packed([real, -imag]), blocks.packed([imag, real])
        parts.append(np.stack(pairs, axis=1))
    weights = np.concatenate([part.reshape(-1) for part in parts])
    return CompiledProduct(shared, weights)


def prefers_kernel(batch: int, channels: int, shape: Shape, itemsize: int) -> bool:
    """Tell whether the compiled kernel runs here and is faster than FFTs.

    Its transforms take n products a number along an axis of n points, and its last vector of images
    may be partly idle.
    """
    if machine.reason(itemsize) is not None:
        return False
    lanes = host().bits // 8 // itemsize
    image, filled = channels * math.prod(shape), -(-batch // lanes) * lanes
    if (
        filled * image * (2 * sum(shape) + 2 * channels)
        > costs.AN_FFT * batch * image + costs.A_CALL
    ):
        return False
    # the buffer mostly stays in the cache, and preparing few matrices is quick
    return max(2 * lanes * image, 4 * channels * image) * itemsize <= _LARGEST
