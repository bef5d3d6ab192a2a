"""The order of the sums of a compiled solve, the same on every processor.

    x[p] = sum over t of W_t z[p - o_t]    with z = y at o_0 = 0, x elsewhere,

and W_0 = D^-1, W_t = -D^-1 K_t, D being the triangular matrix at the pixel itself and K_t that of
another tap; or, if D^-1 would cost accuracy (`inverse_limit`), W_0 = 1 and W_t = -K_t, and the sum
is D x[p].

Every kernel keeps to the following order, whatever its lanes or threads hold, so that all kernels
agree bit for bit. For each output channel:

1. There are `accumulators` sums, each zero at first.
2. For each tap, D's first and then in the order of `tap_order`, and for each input channel k from
   0 to C - 1: the sum number (k mod accumulators) becomes fma(weight, z, sum).
3. The sums are added from the first to the last.
4. D x = s by columns: for each channel, in the order of the substitution, x = s / D[c, c], and then
   for each later channel m: s_m becomes fma(-D[m, c], x, s_m).

A tap that would read a pixel outside the grid reads a zero or is left out: neither changes a sum.
"""

import math

from invconv.arrays.stencil import Sweep, reaching

_UNROLLED = 8  # channels at most, so that the code stays short
_HIDDEN = 12  # independent sums that hide the latency of an addition


def inverse_limit(channels: int) -> int:
    """Return the |D|_1 |D^-1|_1 up to which a product with D^-1 is as accurate as substitution.

    In the 1-norm the condition of random matrices grows with the channels, and the roundings of a
    product average out like the root of their number.
    """
    return max(10, math.isqrt(25 * channels // 4))


def accumulators(block: int, single: bool) -> int:
    """Return the number of sums that share the products of an output channel.

    A block is the output channels that are computed at once; ``single`` if it has all of them.
    """
    return min(unrolled(block, single), max(1, _HIDDEN // block))


def unrolled(block: int, single: bool) -> int:
    """Return the number of input channels that a loop's body writes out one after the other."""
    return block if single and block <= _UNROLLED else 1


def tap_order(sweep: Sweep) -> tuple[int, ...]:
    """Return the taps that reach a pixel of the grid, in the order in which they are added up.

    The tap that reads the pixel that was solved last comes last: its result may still be on its
    way to memory.
    """
    kept = reaching(sweep.offsets, sweep.shape)
    return tuple(sorted(kept, key=lambda t: tuple(-o for o in sweep.reach[t])))
