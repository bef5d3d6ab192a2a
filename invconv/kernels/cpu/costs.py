"""How long the compiled code takes, to choose between ways and numbers of threads.

Each constant was fitted by the suite of ``python -m invconv benchmark`` beside it: "choices" times
every way, "threads" one thread and two. Seconds are for float32 and vectors of 512 bits.
"""

from invconv.kernels.cpu.compiler.target import Target

MULTIPLY = 1.25e-11  # seconds of a product; choices
COPY = 4e-10  # seconds of a number in and out; choices
SHARED = 5e-4  # seconds of a call from which it uses threads; threads
# products that take as long as the rest of a solve, for a vector of a pixel; choices
BESIDE = {"images": 60, "rows": 64, "channels": 75, "recursion": 4}
AN_FFT, A_CALL = 256, 2**20  # products as long as FFTs, for a number and for a call; choices
PIVOT_ROWS = 48  # LAPACK is as quick with more; choices


def seconds(
    numbers: float, products: float, itemsize: int, target: Target, copy: float = COPY
) -> float:
    """Return the time to copy numbers in and out, with so many products for each."""
    return numbers * (copy + MULTIPLY * products) * itemsize / 4 * 512 / target.bits
