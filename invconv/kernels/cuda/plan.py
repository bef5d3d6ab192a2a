"""The plan of a solve on a CUDA device: constants of the code, and launches.

A grid is extended to four axes. The last two are a plane; a band of rows of a plane lies in shared
memory, a record for each pixel, with gaps of zeros between the rows, and with the rows above that
the taps read. If rows are too long, such as a signal, and no tap reads to the right of its pixel,
the plane is turned: its columns are the rows. Records are an odd number of vectors long, and rows
an odd number of records more than the slope, so that neighbouring threads read different banks.

`plan_of` returns None if wavefronts must solve: if neither a row nor a column fits into shared
memory, or if channels, taps or numbers are too many.
"""

import functools
import math
import operator
from dataclasses import dataclass, field

from invconv.arrays.namespaces import Shape
from invconv.arrays.stencil import Offset, Sweep
from invconv.kernels.cuda.arguments import HEAD, Launch
from invconv.kernels.order import accumulators, inverse_limit, tap_order

Constants = tuple[tuple[str, str], ...]

MOST_CHANNELS = 512
PIXELS = 4  # pixels of a thread at a time, at most
_THREADS = 256  # threads of a block at most, unless a pixel has more channels
_KEPT = 256  # bytes of weights, at most, that a thread keeps in registers
_VECTOR = 16  # bytes that are read at once
_AXES = 4
_MOST_TAPS = 1024
_MOST_NUMBERS = 2**31  # numbers of an image: places in it are 32-bit integers
_MOST_BLOCKS = 2**31 - 2  # blocks of a launch, which has one counter more
_CHUNK = 8  # levels between two checks of the band above
# A band has at least _FEW_ROWS rows, and up to _SEVERAL_ROWS if a level would have fewer than
# _NUMBERS numbers: waiting for the band above takes as long as some levels. A level of up to
# _FEW_THREADS numbers has a thread for each; a larger one has a thread for four pixels. All from a
# model of an H100: nothing here was measured.
_FEW_ROWS, _SEVERAL_ROWS, _NUMBERS = 8, 16, 192
_FEW_THREADS = 96
_FOLDING = 32  # threads of a block of "fold": each has a column, which should stay in the cache
_DECIDING, _DECIDING_BLOCKS = 128, 256  # threads of a block, and blocks at most, of "decide"


@dataclass(frozen=True)
class Layout:
    """Settings of the compiled code, which serves every grid and batch."""

    channels: int
    # how far back each tap reads along four axes, in taps, without the pixel itself, in the order
    # in which they are added up: first taps into earlier planes, then taps into the same plane
    offsets: tuple[Offset, ...]
    order: tuple[int, ...]  # the index in the stencil of each of these taps
    itemsize: int  # bytes of a number

    within: tuple[Offset, ...] = field(init=False)  # the offsets in the pixel's own plane
    slope: int = field(init=False)  # the least lag, in levels, of a row behind the row above it
    depth: int = field(init=False)  # rows up that the taps read
    gap: int = field(init=False)  # columns to either side that they read: zeros between the rows
    sums: int = field(init=False)  # that share the products of an output channel
    vector: int = field(init=False)  # channels that are read at once
    record: int = field(init=False)  # numbers from a pixel to the next: an odd number of vectors
    threads: int = field(init=False)  # of a block at most
    weights_kept: bool = field(init=False)  # whether those of `within` are in registers

    def __post_init__(self) -> None:
        channels, within = self.channels, tuple(o for o in self.offsets if not any(o[:2]))
        sums = accumulators(channels, single=True)
        vector = min(_VECTOR // self.itemsize, 4 if channels > 2 else channels)
        vectors = -(-sums * channels // vector)
        vars(self).update(
            within=within,
            slope=max([0, *(-((o[3] - 1) // o[2]) for o in within if o[2] > 0)]),
            depth=max([0, *(o[2] for o in within)]),
            gap=max([0, *(abs(o[3]) for o in within)]),
            sums=sums,
            vector=vector,
            record=(vectors + 1 - vectors % 2) * vector,
            threads=max(_THREADS, -(-channels // 32) * 32),
            weights_kept=0 < len(within) * channels * self.itemsize <= _KEPT,
        )

    def constants(self, weights_shared: bool) -> Constants:
        """Return the names and values of the sources' macros."""
        taps = ",".join(f"{{{{{','.join(map(str, offset))}}}}}" for offset in self.offsets)
        values = {
            "REAL": "float" if self.itemsize == 4 else "double",
            "CHANNELS": self.channels,
            "SUMS": self.sums,
            "VECTOR": self.vector,
            "RECORD": self.record,
            "CROSS": len(self.offsets) - len(self.within),
            "PLANE": len(self.within),
            "REACH": taps or "{}",
            "ORDER": ",".join(["0", *(str(1 + t) for t in self.order)]),
            "SLOPE": self.slope,
            "DEPTH": self.depth,
            "GAP": self.gap,
            "PIXELS": PIXELS,
            "KEPT": int(self.weights_kept),
            "SHARED_WEIGHTS": int(weights_shared),
            "LIMIT": inverse_limit(self.channels),
            "MAX_THREADS": self.threads,
        }
        return tuple((name, str(value)) for name, value in values.items())


@dataclass(frozen=True)
class Device:
    """Properties of a device that a plan depends on."""

    architecture: int  # 10 times the compute capability: 90
    shared: int  # bytes of a block at most: MAX_SHARED_MEMORY_PER_BLOCK_OPTIN or `SHARED_MEMORY`
    processors: int  # streaming multiprocessors


# by architecture, from NVIDIA's CUDA C++ programming guide, "Compute Capabilities"
SHARED_MEMORY = {
    **dict.fromkeys([75], 64 * 1024),
    **dict.fromkeys([86, 89, 120, 121], 99 * 1024),
    **dict.fromkeys([80, 87], 163 * 1024),
    **dict.fromkeys([90, 100, 103, 110], 227 * 1024),
}
LEAST_SHARED_MEMORY = 48 * 1024  # of any device
OLDEST = 70  # the first architecture that has loads and stores with a memory order


@dataclass(frozen=True)
class Plan:
    """The constants and launches of a stencil's solve on a grid and a device, for any batch.

    Bands of rows lie in shared memory.
    """

    layout: Layout
    extent: Shape  # the grid, of four axes
    strides: tuple[int, ...]  # numbers of an image from pixel to pixel along each axis
    direction: tuple[int, ...]  # of each axis
    dilation: tuple[int, ...]
    lower: bool  # whether D is lower triangular
    device: Device
    weights_shared: bool  # whether the weights of the taps within a plane lie in shared memory too
    weights: int = field(init=False)  # numbers: W_0, W_1, ..., D, the flag, norms of columns
    plane: tuple[int, int] = field(init=False)  # of the largest residue class: rows and columns
    pitch: int = field(init=False)  # records from a row to the next

    def __post_init__(self) -> None:
        layout, channels = self.layout, self.layout.channels
        pairs = zip(self.extent[2:], self.dilation[2:], strict=True)
        rows, columns = (-(-n // d) for n, d in pairs)
        least = columns + layout.gap
        vars(self).update(
            weights=(2 + len(layout.offsets)) * channels**2 + 1 + 2 * channels,
            plane=(rows, columns),
            pitch=least + (least - layout.slope + 1) % 2,
        )

    @property
    def constants(self) -> Constants:
        """The constants with which to compile the sources."""
        return self.layout.constants(self.weights_shared)

    def band_bytes(self, rows: int) -> int:
        """Return the bytes of shared memory of a band."""
        layout = self.layout
        numbers = (layout.gap + (rows + layout.depth) * self.pitch) * layout.record
        if self.weights_shared:
            numbers += len(layout.within) * layout.channels**2
        return HEAD + numbers * layout.itemsize

    @property
    def most_rows(self) -> int:
        """The most rows of a band that fit into shared memory."""
        left = self.device.shared - self.band_bytes(0)
        return min(self.plane[0], left // (self.pitch * self.layout.record * self.layout.itemsize))

    @property
    def most_images(self) -> int:
        """The most images of a launch, whatever the number of bands of an image."""
        units = math.prod(self.extent[:2]) * self.plane[0] * math.prod(self.dilation[2:])
        return _MOST_BLOCKS // units

    def weigh(self) -> tuple[Launch, Launch]:
        """Return the launches of "fold" and "decide", which compute the weights, in this order."""
        taps, channels, integers = len(self.layout.offsets), self.layout.channels, self._integers()
        columns, numbers = (1 + taps) * channels, (2 + taps) * channels**2 + 1
        blocks = min(-(-numbers // _DECIDING), _DECIDING_BLOCKS)
        return (
            Launch("fold", -(-columns // _FOLDING), _FOLDING, 0, 0, integers),
            Launch("decide", blocks, _DECIDING, 0, 0, integers),
        )

    def solve(self, batch: int) -> Launch:
        """Return the launch of "solve" for a batch of at least one image."""
        images = batch * math.prod(self.dilation[2:])
        bands = max(1, self.device.processors // images)  # to keep the whole device at work
        least = min(_SEVERAL_ROWS, max(_FEW_ROWS, _NUMBERS // self.layout.channels))
        rows = max(-(-self.plane[0] // bands), least, self.layout.depth)
        return self.in_bands(batch, min(rows, self.most_rows))

    def in_bands(
        self, batch: int, rows: int, threads: int | None = None, chunk: int | None = None
    ) -> Launch:
        """Return the launch of "solve" in bands of ``rows`` rows, at least `depth` or all.

        A band of one column needs all of the band above it before it begins.
        """
        chunk = chunk or (_CHUNK if self.plane[1] > 1 else rows)
        bands, planes = -(-self.plane[0] // rows), math.prod(self.extent[:2])
        images = batch * math.prod(self.dilation[2:])
        blocks = planes * bands * images
        if threads is None:
            channels, pixels = self.layout.channels, min(rows, self.plane[1])  # of a level
            slots = max(-(-pixels // PIXELS), min(pixels, _FEW_THREADS // channels))
            slots = max(1, min(slots, self.layout.threads // channels))
            threads = -(-slots * channels // 32) * 32
        counters = 1 + blocks if bands * planes > 1 else 0
        integers = self._integers(rows=rows, bands=bands, images=images, chunk=chunk)
        return Launch("solve", blocks, threads, self.band_bytes(rows), counters, integers)

    def _integers(
        self, rows: int = 1, bands: int = 1, images: int = 1, chunk: int = 1
    ) -> tuple[int, ...]:
        """Return the numbers of the struct `Grid`, in the order of `GRID`."""
        triples = zip(self.direction, self.dilation, self.strides, strict=True)
        step, last = (s * d * n for s, d, n in triples), (rows, bands, images, chunk)
        return (*self.extent, *step, *self.dilation, self.pitch, *last, int(self.lower))


@functools.lru_cache(maxsize=256)
def plan_of(channels: int, sweep: Sweep, itemsize: int, device: Device) -> Plan | None:
    """Return the plan of a causal stencil on a grid, or None if wavefronts must solve.

    The grid has one to four axes; taps that read beyond it from every pixel are left out.
    """
    shape, reach, direction, dilation = sweep.shape, sweep.reach, sweep.direction, sweep.dilation
    if itemsize not in (4, 8) or len(shape) > _AXES or device.architecture < OLDEST:
        return None
    if channels > MOST_CHANNELS or channels * math.prod(shape) >= _MOST_NUMBERS:
        return None
    pixels = [tuple(d * o for d, o in zip(dilation, offset, strict=True)) for offset in reach]
    order = tuple(tap_order(pixels, shape))
    if len(order) > _MOST_TAPS:
        return None
    front = _AXES - len(shape)
    offsets = tuple((0,) * front + reach[t] for t in order)
    # a dilation longer than the grid becomes as long as the grid
    dilation = tuple(min(d, n) for d, n in zip(dilation, shape, strict=True))
    extent, direction, dilation = ((1,) * front + n for n in (shape, direction, dilation))
    strides = tuple(math.prod(extent[a + 1 :]) for a in range(_AXES))
    for axes in ((0, 1, 2, 3), (0, 1, 3, 2)):  # as it is, and turned
        in_order = operator.itemgetter(*axes)
        layout = Layout(channels, tuple(map(in_order, offsets)), order, itemsize)
        if any(o[2] < 0 for o in layout.within):
            continue
        grid, steps, ways, apart = map(in_order, (extent, strides, direction, dilation))
        for weights_shared in [False] if layout.weights_kept else [True, False]:
            plan = Plan(layout, grid, steps, ways, apart, sweep.lower, device, weights_shared)
            least = _FEW_ROWS if weights_shared else max(1, layout.depth)
            if plan.most_rows >= min(plan.plane[0], least):
                return plan
    return None
