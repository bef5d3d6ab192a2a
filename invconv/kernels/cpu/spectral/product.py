"""Products with a matrix per frequency by the compiled kernel, on arrays in host memory.

x_hat(f) = A(f) y_hat(f)
"""

import ctypes
import functools
import math
from dataclasses import dataclass, field, replace

import numpy as np

from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.geometry import Shape, blocks_of
from invconv.kernels.cpu.program import Assembled, Floats, addresses
from invconv.kernels.cpu.spectral.costs import along
from invconv.kernels.cpu.spectral.product_program import Blocks, Header, RealTransform, program


@dataclass(frozen=True, eq=False)
class CompiledProduct:
    """The map y -> x with x_hat(f) = A(f) y_hat(f) on a grid."""

    program: Assembled[Header]
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
        """Map images at the address ``y``, and put the results at ``x``.

        The other arguments are as for `invconv.kernels.cpu.compiled.CompiledSolve.run`.
        """
        units = -(-batch // self.lanes)
        workers = min(units, costs.threads(workers, units * self.seconds))
        shared = ctypes.c_int64()  # the ticket
        arrays = *addresses(self.transforms, self.weights), self.program.address
        given = y, x, *arrays, ctypes.addressof(shared)

        size = self.program.header.size * self.itemsize
        in_buffers(size, workers, self.code.call, given, (batch,), (self, shared, keeps))


@functools.lru_cache(maxsize=64)
def _without(
    channels: int, shape: Shape, transform: RealTransform, itemsize: int, target: Target
) -> CompiledProduct:
    """Compile a product on a grid without matrices of the frequencies."""
    from invconv.kernels.cpu.spectral.product_loop import write_product

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
        machine.compiled(target, itemsize, write_product),
        code,
    )


def compiled_product(
    matrices: Floats, shape: Shape, transform: RealTransform, target: Target | None = None
) -> CompiledProduct:
    """Return the product with a matrix per frequency, in the precision of the matrices.

    ``matrices`` (F, C, C) are real or complex. The target is this processor unless given.
    """
    channels, number = matrices.shape[1], matrices.real.dtype
    shared = _without(channels, tuple(shape), transform, number.itemsize, target or host())
    chosen = matrices[transform.frequencies] * transform.scale[:, None, None].astype(number)
    first, blocks = transform.reals, shared.blocks
    parts = [blocks.packed([chosen.real[:first]])]
    if first < len(chosen):
        real, imag = chosen.real[first:], chosen.imag[first:]
        pairs = blocks.packed([real, -imag]), blocks.packed([imag, real])
        parts.append(np.stack(pairs, axis=1))
    weights = np.concatenate([part.reshape(-1) for part in parts])
    return replace(shared, weights=weights)
