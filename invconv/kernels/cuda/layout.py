"""The constants of the compiled code: channels, taps, precision, and a pixel in shared memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from invconv.arrays.stencil import Offset
from invconv.kernels.order import accumulators, inverse_limit, unrolled

Constants = tuple[tuple[str, str], ...]

PIXELS = 4  # pixels of a thread at a time, at most
_THREADS = 256  # threads of a block at most, unless a pixel has more channels
_KEPT = 256  # bytes of weights, at most, that a thread keeps in registers
_VECTOR = 16  # bytes that are read at once


@dataclass(frozen=True)
class Layout:
    """Settings of the compiled code, which serves every grid and batch."""

    channels: int
    # how far back each tap reads along four axes, in taps, without the pixel itself, in the order
    # in which they are added up: first taps into earlier planes, then taps into the same plane
    offsets: tuple[Offset, ...]
    order: tuple[int, ...]  # the index in the stencil of each of these taps
    itemsize: int  # bytes of a number

    @functools.cached_property
    def within(self) -> tuple[Offset, ...]:
        """The offsets of the taps that read the pixel's own plane."""
        return tuple(o for o in self.offsets if not any(o[:2]))

    @property
    def slope(self) -> int:
        """The least lag, in levels, of a row behind the row above it that the taps allow."""
        return max([0, *(-((o[3] - 1) // o[2]) for o in self.within if o[2] > 0)])

    @property
    def depth(self) -> int:
        """The number of rows up that the taps read."""
        return max([0, *(o[2] for o in self.within)])

    @property
    def gap(self) -> int:
        """The number of columns to either side that the taps read: zeros between the rows."""
        return max([0, *(abs(o[3]) for o in self.within)])

    @property
    def sums(self) -> int:
        """The number of sums that share the products of an output channel."""
        return accumulators(self.channels, single=self.channels == unrolled(self.channels, True))

    @property
    def vector(self) -> int:
        """The number of channels that are read at once."""
        return min(_VECTOR // self.itemsize, 4 if self.channels > 2 else self.channels)

    @functools.cached_property
    def record(self) -> int:
        """Numbers from a pixel to the next: an odd number of vectors."""
        vectors = -(-self.sums * self.channels // self.vector)
        return (vectors + 1 - vectors % 2) * self.vector

    @property
    def threads(self) -> int:
        """The number of threads of a block at most."""
        return max(_THREADS, -(-self.channels // 32) * 32)

    @property
    def weights_kept(self) -> bool:
        """Whether a thread keeps its weights of the taps within a plane in registers."""
        return 0 < len(self.within) * self.channels * self.itemsize <= _KEPT

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
