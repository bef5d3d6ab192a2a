"""How long the compiled code takes, to choose between ways and numbers of threads.

Seconds are for one thread, float32 and vectors of 512 bits. No command fits them: the suites of
``python -m invconv benchmark`` that are named beside them time what they decide.
"""

from __future__ import annotations

from invconv.kernels.cpu.compiler.target import Target

MULTIPLY = 1.25e-11  # seconds of a product; forward
COPY = {"pixels": 4.5e-10, "images": 3.5e-10}  # of a number in and out, by the lanes; forward
COPY_LARGE, LARGE = 7e-10, 2**19  # of a number of images in the lanes of more bytes; forward
BEGIN = {"pixels": 6e-10, "images": 8e-10}  # of the sums of a lane; forward
FEW = 4  # images of a batch that are not worth code with images in the lanes; forward
SHARED = 5e-4  # seconds of a call from which it uses threads; threads
# products that take as long as the rest of a solve, for a vector of a pixel; inverse
BESIDE = {"images": 60, "rows": 64, "channels": 75, "recursion": 4}
AN_FFT, A_CALL = 512, 2**22  # products as long as FFTs, for a number and for a call; periodic
PIVOT_ROWS, PIVOT_MATRICES = 24, 12  # LAPACK is as quick with more rows, or with fewer matrices


def seconds(
    numbers: float, products: float, itemsize: int, target: Target, copy: float = COPY["images"]
) -> float:
    """Return the time to copy numbers in and out, with so many products for each."""
    return numbers * (copy + MULTIPLY * products) * itemsize / 4 * 512 / target.bits
