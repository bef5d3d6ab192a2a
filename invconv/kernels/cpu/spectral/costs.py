"""Which products and pivots are compiled, and in which blocks: the numbers are the same."""

import math

from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.geometry import Shape


def along(points: int, most: int) -> tuple[int, int]:
    """Return how many blocks of 8 or 16 an axis has: axes of any length share the compiled code."""
    few, many = -(-points // 8), -(-points // 16)
    return (many, 16) if most >= 16 and 5 * 2 * many <= 6 * few else (few, 8)


def prefers_lanes(count: int, channels: int) -> bool:
    """Tell whether the compiled function runs here and is faster than LAPACK on matrices."""
    return channels <= costs.PIVOT_ROWS and machine.reason(8) is None and count >= host().lanes(8)


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
