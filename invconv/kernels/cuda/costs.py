"""How a launch is divided, from a model of an H100: nothing here was measured."""

MOST_CHANNELS, MOST_TAPS = 512, 1024  # that the kernel is for
PIXELS = 4  # pixels of a thread at a time, at most
THREADS = 256  # threads of a block at most, unless a pixel has more channels
KEPT = 256  # bytes of weights, at most, that a thread keeps in registers
VECTOR = 16  # bytes that are read at once
CHUNK = 8  # levels between two checks of the band above
FEW_ROWS = 8  # rows of a band at least, if it has several
FOLDING = 32  # threads of a block of "fold": each has a column, which should stay in the cache
DECIDING, DECIDING_BLOCKS = 128, 256  # threads of a block, and blocks at most, of "decide"


def rows(height: int, channels: int, images: int, processors: int) -> int:
    """Return the rows of a band: few, so that the whole device is at work.

    Waiting for the band above takes as long as some levels: there are more rows, up to 16, if a
    level would have fewer than 192 numbers.
    """
    bands = max(1, processors // images)
    return max(-(-height // bands), min(16, max(FEW_ROWS, 192 // channels)))


def threads(channels: int, pixels: int, most: int) -> int:
    """Return the threads of a block, for a level of so many pixels.

    A level of up to 96 numbers has a thread for each; a larger one has a thread for four pixels.
    """
    slots = max(-(-pixels // PIXELS), min(pixels, 96 // channels))
    return -(-max(1, min(slots, most // channels)) * channels // 32) * 32
