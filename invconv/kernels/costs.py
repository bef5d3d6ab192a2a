"""Sizes from which another way to the same numbers is quicker, in every library."""

BY_MATRIX = 128  # points: an axis of at most so many is transformed by a product with a matrix
LONG = 32  # taps along an axis, beyond which FFTs take less time and memory than their phases
FEW = 3  # channels for which NumPy's and XLA's products of each frequency are slower than sums
AT_ONCE = 2**16  # taps times pixels at most, for the table of all phases to be kept
ENTRIES = 2**21  # of e^M_hat(f) at all frequencies, at most, to be kept: 32 MB in complex128
# Above this size BLAS's trsm starts threads, which compete with the pool's: split B to stay below
# it, unless that makes too many pieces.
SHARED_OUT, PIECES = 1024, 16


def apart(pitch: int) -> int:
    """Return a pitch of rows, in numbers: pixels 512 numbers apart would share few cache sets."""
    return pitch if pitch % 512 else pitch + 16
