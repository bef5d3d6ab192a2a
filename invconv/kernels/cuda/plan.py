"""The plan of a solve on a CUDA device: constants of the code, launches and their arguments.

A grid is extended to four axes. The last two are a plane; a band of rows of a plane lies in shared
memory, a record for each pixel, with gaps of zeros between the rows, and with the rows above that
the taps read. If rows are too long, such as a signal, and no tap reads to the right of its pixel,
the plane is turned: its columns are the rows. Records are an odd number of vectors long, and rows
an odd number of records more than the slope, so that neighbouring threads read different banks.

`plan_of` returns None if wavefronts must solve: if neither a row nor a column fits into shared
memory, or if channels, taps or numbers are too many.

A kernel of `weights.cu` and `solve.cu` takes the addresses of its `POINTERS` and then one struct of
18 ints, by value. Arrays are contiguous, of one dtype, float32 or float64:

    matrices   (1 + T, C, C): D, with zeros in its other triangle, then the stencil's taps
    weights    ``plan.weights`` numbers, which need not be zeroed
    y, x       (batch, C, *shape), the batch not empty; x is other memory than y
    counters   32-bit ints, set to zero in the same stream before every launch, used by no other
               launch meanwhile; null if there are none

"fold" and "decide" factor an operator: "decide" decides on the device whether D^-1 is folded in,
and "solve" reads the decision there. The host never knows, and waits for nothing.
"""

import functools
import math
import operator
from dataclasses import dataclass, field

import numpy as np

from invconv.arrays.stencil import Offset, Sweep
from invconv.kernels.order import accumulators, inverse_limit, tap_order

GRID = (  # the struct `Grid` in `common.cuh`
    *(f"{name}_{axis}" for name in ("extent", "step", "dilation") for axis in range(4)),
    *("pitch", "rows", "bands", "images", "chunk", "lower"),
)
POINTERS = {
    "fold": ("matrices", "weights"),
    "decide": ("matrices", "weights"),
    "solve": ("y", "x", "weights", "counters"),
}
_HEAD = 16  # bytes of shared memory before the numbers: a ticket

_AXES = 4
_MOST_NUMBERS = 2**31  # numbers of an image: places in it are 32-bit integers
_MOST_BLOCKS = 2**31 - 2  # blocks of a launch, which has one counter more
_MOST_CHANNELS, _MOST_TAPS = 512, 1024  # that the kernel is for

# how a launch is divided, from a model of an H100: nothing here was measured
_PIXELS = 4  # pixels of a thread at a time, at most
_THREADS = 256  # threads of a block at most, unless a pixel has more channels
_KEPT = 256  # bytes of weights, at most, that a thread keeps in registers
_VECTOR = 16  # bytes that are read at once
_CHUNK = 8  # levels between two checks of the band above
_FEW_ROWS = 8  # rows of a band at least, if it has several
_FOLDING = 32  # threads of a block of "fold": each has a column, which should stay in the cache
_DECIDING, _DECIDING_BLOCKS = 128, 256  # threads of a block, and blocks at most, of "decide"

Constants = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel."""

    kernel: str  # "fold", "decide" or "solve"
    blocks: int
    threads: int
    shared: int  # bytes of dynamic shared memory
    counters: int  # number of 32-bit ints that must be set to zero before the launch
    integers: tuple[int, ...]  # of `GRID`

    @property
    def struct(self) -> bytes:
        return np.array(self.integers, np.int32).tobytes()


@dataclass(frozen=True)
class Device:
    """Properties of a device that a plan depends on."""

    architecture: int  # 10 times the compute capability: 90
    shared: int  # bytes of a block at most: MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    processors: int  # streaming multiprocessors


OLDEST = 70  # the first architecture that has loads and stores with a memory order


@dataclass(frozen=True)
class LaunchPlan:
    """The constants, which many grids share, and launches of a stencil's solve, for any batch."""

    # on a grid of four axes; taps, without the pixel itself, in the order in which they are added
    # up: first taps into earlier planes, then taps into the same plane
    sweep: Sweep
    order: tuple[int, ...]  # the index in the stencil of each of these taps
    strides: tuple[int, ...]  # numbers of an image from pixel to pixel along each axis
    channels: int
    itemsize: int  # bytes of a number
    device: Device
    weights_shared: bool  # whether the weights of the taps within a plane lie in shared memory too

    within: tuple[Offset, ...] = field(init=False)  # the taps into the pixel's own plane
    depth: int = field(init=False)  # rows up that they read
    gap: int = field(init=False)  # columns to either side that they read: zeros between the rows
    sums: int = field(init=False)  # that share the products of an output channel
    vector: int = field(init=False)  # channels that are read at once
    record: int = field(init=False)  # numbers from a pixel to the next: an odd number of vectors
    threads: int = field(init=False)  # of a block at most
    weights_kept: bool = field(init=False)  # whether those of `within` are in registers
    weights: int = field(init=False)  # numbers: W_0, W_1, ..., D, the flag, norms of columns
    plane: tuple[int, int] = field(init=False)  # of the largest residue class: rows and columns
    pitch: int = field(init=False)  # records from a row to the next

    def __post_init__(self) -> None:
        channels, reach = self.channels, self.sweep.reach
        within = tuple(o for o in reach if not any(o[:2]))
        sums = accumulators(channels, single=True)
        vector = min(_VECTOR // self.itemsize, 4 if channels > 2 else channels)
        vectors = -(-sums * channels // vector)
        gap = max([0, *(abs(o[3]) for o in within)])
        pairs = zip(self.sweep.shape[2:], self.sweep.dilation[2:], strict=True)
        rows, columns = (-(-n // d) for n, d in pairs)
        least = columns + gap
        vars(self).update(
            within=within,
            depth=max([0, *(o[2] for o in within)]),
            gap=gap,
            sums=sums,
            vector=vector,
            record=(vectors + 1 - vectors % 2) * vector,
            threads=max(_THREADS, -(-channels // 32) * 32),
            weights_kept=0 < len(within) * channels * self.itemsize <= _KEPT,
            weights=(2 + len(reach)) * channels**2 + 1 + 2 * channels,
            plane=(rows, columns),
            pitch=least + (least - self.sweep.lag + 1) % 2,
        )

    @property
    def constants(self) -> Constants:
        reach = self.sweep.reach
        taps = ",".join(f"{{{{{','.join(map(str, offset))}}}}}" for offset in reach)
        values = {
            "REAL": "float" if self.itemsize == 4 else "double",
            "CHANNELS": self.channels,
            "SUMS": self.sums,
            "VECTOR": self.vector,
            "RECORD": self.record,
            "CROSS": len(reach) - len(self.within),
            "PLANE": len(self.within),
            "REACH": taps or "{}",
            "ORDER": ",".join(["0", *(str(1 + t) for t in self.order)]),
            "SLOPE": self.sweep.lag,
            "DEPTH": self.depth,
            "GAP": self.gap,
            "PIXELS": _PIXELS,
            "KEPT": int(self.weights_kept),
            "SHARED_WEIGHTS": int(self.weights_shared),
            "LIMIT": inverse_limit(self.channels),
            "MAX_THREADS": self.threads,
        }
        return tuple((name, str(value)) for name, value in values.items())

    def band_bytes(self, rows: int) -> int:
        numbers = (self.gap + (rows + self.depth) * self.pitch) * self.record
        if self.weights_shared:
            numbers += len(self.within) * self.channels**2
        return _HEAD + numbers * self.itemsize

    @property
    def most_rows(self) -> int:
        """The most rows of a band that fit into shared memory."""
        left = self.device.shared - self.band_bytes(0)
        return min(self.plane[0], left // (self.pitch * self.record * self.itemsize))

    @property
    def most_images(self) -> int:
        """The most images of a launch, whatever the number of bands of an image."""
        planes = math.prod(self.sweep.shape[:2])
        return max(1, _MOST_BLOCKS // (planes * self.plane[0] * self._images(1)))

    def _images(self, batch: int) -> int:
        """Return the number of images of a batch, with residue classes modulo the dilation."""
        return batch * math.prod(self.sweep.dilation[2:])

    def weigh(self) -> tuple[Launch, Launch]:
        """Return the launches of "fold" and "decide", which compute the weights, in this order."""
        taps, channels, integers = len(self.order), self.channels, self.solve(1).integers
        columns, numbers = (1 + taps) * channels, (2 + taps) * channels**2 + 1
        blocks = min(-(-numbers // _DECIDING), _DECIDING_BLOCKS)
        return (
            Launch("fold", -(-columns // _FOLDING), _FOLDING, 0, 0, integers),
            Launch("decide", blocks, _DECIDING, 0, 0, integers),
        )

    def solve(self, batch: int) -> Launch:
        """Return the launch of "solve" for a batch of at least one image."""
        # few rows, so that the whole device is at work; but to wait for the band above takes as
        # long as some levels: more, up to 16, if a level would have fewer than 192 numbers
        bands = max(1, self.device.processors // self._images(batch))
        least = min(16, max(_FEW_ROWS, 192 // self.channels))
        rows = max(-(-self.plane[0] // bands), least)
        return self.in_bands(batch, min(max(rows, self.depth), self.most_rows))

    def in_bands(
        self, batch: int, rows: int, threads: int | None = None, chunk: int | None = None
    ) -> Launch:
        """Return the launch of "solve" in bands of ``rows`` rows, at least `depth` or all."""
        c, images = self.sweep, self._images(batch)
        chunk = chunk or (_CHUNK if self.plane[1] > 1 else rows)  # a column needs all above it
        bands, planes = -(-self.plane[0] // rows), math.prod(c.shape[:2])
        blocks = planes * bands * images
        if threads is None:
            # a level of up to 96 numbers has a thread for each, a larger one for each four pixels
            pixels = min(rows, self.plane[1])
            slots = max(-(-pixels // _PIXELS), min(pixels, 96 // self.channels))
            most = max(1, min(slots, self.threads // self.channels))
            threads = -(-most * self.channels // 32) * 32
        counters = 1 + blocks if bands * planes > 1 else 0
        step = map(operator.mul, map(operator.mul, c.direction, c.dilation), self.strides)
        last = self.pitch, rows, bands, images, chunk, int(c.lower)
        integers = (*c.shape, *step, *c.dilation, *last)  # in the order of `GRID`
        return Launch("solve", blocks, threads, self.band_bytes(rows), counters, integers)


@functools.lru_cache(maxsize=256)
def plan_of(channels: int, sweep: Sweep, itemsize: int, device: Device) -> LaunchPlan | None:
    """Return the plan of a causal stencil on a grid, or None if wavefronts must solve."""
    shape = sweep.shape
    if itemsize not in (4, 8) or len(shape) > _AXES or device.architecture < OLDEST:
        return None
    if channels > _MOST_CHANNELS or channels * math.prod(shape) >= _MOST_NUMBERS:
        return None
    order = tap_order(sweep)
    if len(order) > _MOST_TAPS:
        return None
    ones, dilation = (1,) * (_AXES - len(shape)), map(min, sweep.dilation, shape)
    reach = [(*(0 for _ in ones), *sweep.reach[t]) for t in order]
    # a dilation longer than the grid becomes as long as the grid
    fields = [(*ones, *n) for n in (sweep.direction, dilation, shape)]
    strides = tuple(math.prod(fields[-1][a + 1 :]) for a in range(_AXES))
    for axes in ((0, 1, 2, 3), (0, 1, 3, 2)):  # as it is, and turned
        in_order = operator.itemgetter(*axes)
        direction, apart, grid, steps = map(in_order, (*fields, strides))
        turned = Sweep(tuple(map(in_order, reach)), direction, apart, sweep.lower, grid)
        for weights_shared in (True, False):
            plan = LaunchPlan(turned, order, steps, channels, itemsize, device, weights_shared)
            if any(o[2] < 0 for o in plan.within) or (weights_shared and plan.weights_kept):
                continue
            least = max(_FEW_ROWS if weights_shared else 1, plan.depth)
            if plan.most_rows >= min(plan.plane[0], least):
                return plan
    return None
