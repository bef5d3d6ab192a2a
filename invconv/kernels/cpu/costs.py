"""How long the compiled code takes, to choose between ways and numbers of threads.

The constants are in seconds, for one thread, float32 and vectors of 512 bits. ``python -m
invconv_benchmarks.studies.choices`` shows where they choose the slower way, and ``... two_threads``
where a second thread does not pay.
"""

from __future__ import annotations

from invconv.kernels.cpu.compiler.target import Target

MULTIPLY = 1.25e-11  # a product
COPY = {"pixels": 4.5e-10, "images": 3.5e-10}  # a number in and out, by the contents of the lanes
COPY_LARGE, LARGE = 7e-10, 2**19  # and of images in the lanes of more bytes
BEGIN = {"pixels": 6e-10, "images": 8e-10}  # the sums of a lane
SHARED = 5e-4  # a call that takes longer uses threads


def seconds(
    numbers: float, products: float, itemsize: int, target: Target, copy: float = COPY["images"]
) -> float:
    """Return the time to copy numbers in and out, with so many products for each."""
    return numbers * (copy + MULTIPLY * products) * itemsize / 4 * 512 / target.bits
