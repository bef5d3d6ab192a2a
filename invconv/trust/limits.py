"""The numbers by which inverses are judged, and why they are these.

Errors are relative to the largest entry.
"""

# --- what is right ---------------------------------------------------------------------------
TOLERATED = 1e-2  # error of an entry: with fewer than two digits left an inverse counts as lost
ROUNDING = 64.0  # eps: error of an input that was recomputed by a chain of a few steps
UNRESOLVED = 0.1  # a smallest singular value is known only if rounding is below this part of it
IN_RANGE = 1e30  # of a bound: beyond it numbers may overflow in float32, inverses are subnormal
NEAR = 0.1  # part of a limit
SMALL = 1e-30  # size of K x below which x of an ordinary y may overflow, and nothing is lost

# --- advice ----------------------------------------------------------------------------------
GROWS = 0.5  # digits lost over a grid: with more, the advice names the largest grid
FARTHEST = 4.0  # times the grid: growth is not extrapolated farther
FACTORS_GROW = 100.0  # loss of a matrix's factors over its condition: beyond it they are to blame
GROWING = 1.01  # per pixel: less is called slow, if half of an axis costs this many digits
SLOW = 0.1
ROOM = 1e-9  # max_gain - 1 at least: with less, the shares of many factors would round to 1
