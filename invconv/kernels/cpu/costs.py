"""How long the compiled code takes, to choose ways and numbers of threads; and how much at a time.

Ways differ by rounding alone. A constant with the name of a suite beside it was fitted by that
suite of ``python -m invconv benchmark``: "choices" times every way, "threads" one thread and two.
Seconds are for float32 and vectors of 512 bits.
"""

from invconv.kernels.cpu.compiler.target import Target

MULTIPLY = 1.25e-11  # seconds of a product; choices
COPY = 4e-10  # seconds of a number in and out; choices
SHARED = 5e-4  # seconds of a call from which it uses threads; threads
# overhead per pixel, in products; fitted by `benchmark choices`
BESIDE = {"images": 60, "rows": 64, "channels": 75, "recursion": 4}
AN_FFT, A_CALL = 256, 2**20  # products as long as FFTs, for a number and for a call; choices
PIVOT_ROWS = 48  # LAPACK is as quick with more; choices

# bytes of working memory, at most; the cache holds the first ones, beside images and weights
BAND = 2**18  # of a solve, or of whole images of a correlation
MANY_ROWS = 2**20  # of a solve with channels in the lanes: with more rows, more share weights
BANDS = 2**19  # of a correlation in bands, of which rows above and below are copied again
GROUP = 2**21  # of images in the lanes and their results in a correlation
FREQUENCIES = 2**24  # of a product with a matrix per frequency, or of its matrices
STRIPS = 2**26  # of a solve with rows in the lanes
KEPT = 2**25  # of the buffer that a thread keeps
LINE, PAGE = 64, 4096  # bytes; channels a page apart, or a multiple, would share few sets

STRIP_PARTS = 4  # parts of a strip of rows, so that another thread may follow
LISTS = 16  # lists of taps of a solve at most, to keep programs short
LIST_NUMBERS = 2**14  # of all lists of a correlation, to stay in the cache
# by the number of a processor's vector registers:
SUMS = {32: 24, 16: 12}  # sums that fit, beside a vector that is read and a weight
GRAM = {32: (4, 6), 16: (3, 4)}  # channels of y_bar and of x whose products are summed at once
SHARING = {32: 8, 16: 4}  # pixels that share a load of weights with channels in the lanes

TOGETHER = 8  # images, at most, that share the weights then
REGISTERS = 8  # solved numbers of a signal, at most, that stay in registers
TILE = 8  # samples of a signal, at most, that are written out one after the other
FILTER = 48  # coefficients of a filter that are worth code of their own
SECTIONS = 5  # of a cascade at once, of which registers hold most of the numbers
# lines of a square at most: images often lie whole pages apart, so that all go to one set of the
# cache, which holds eight at least
SIDES = {"images": 8, "wholes": 8, "channels": 8, "rows": 64}
AHEAD = 1  # vectors: memory this far ahead is prefetched before it is written


def threads(workers: int, taken: float) -> int:
    """Return the number of threads of a call that takes so many seconds on one."""
    return workers if taken >= SHARED else 1


def apart(numbers: int, itemsize: int) -> int:
    """Return a distance of channels, longer by a line if it were whole pages."""
    return numbers if numbers * itemsize % PAGE else numbers + LINE // itemsize


def seconds(
    numbers: float, products: float, itemsize: int, target: Target, *, copied: bool = True
) -> float:
    """Return the time of so many products for each of the numbers, which are copied in and out."""
    return numbers * (copied * COPY + MULTIPLY * products) * itemsize / 4 * 512 / target.bits
