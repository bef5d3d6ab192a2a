"""The numbers by which inverses are judged, and why they are these.

Errors are relative to the largest entry. Work is counted in additions of two numbers, 1.5 ns each.
"""

# --- errors ----------------------------------------------------------------------------------
TOLERATED = 1e-2  # error of an entry: with fewer than two digits left an inverse counts as lost
HALF = 3.0  # eps of a half type: tolerated if y is rounded to it; in bfloat16 more than TOLERATED
ROUNDING = 64.0  # eps: error of an input that was recomputed by a chain of a few steps
UNRESOLVED = 0.1  # a smallest singular value is known only if rounding is below this part of it
IN_RANGE = 1e30  # of a bound: beyond it numbers may overflow in float32, inverses are subnormal
NEAR = 0.1  # part of a limit from which on an error is near it
SMALL = 2.0**-100  # size of K x below which an ordinary y's x may overflow with no digit lost

# --- how many images make a round trip -------------------------------------------------------
CYCLE = 5  # images that find every clear loss: one of each kind
FEW, MORE = 24, 3  # images of a call; MORE times as many near the limit: samples differ tenfold
DIAGNOSED = 96  # images of a diagnosis: the worst of them is within half a digit of any other's
UNSEEN = 3.0  # a large recursion is judged by few images: others may have 3 times their error
WORK = 2e7  # of a call's images, 30 ms; with the factorisation within 3 solves and 50 ms
BANDS = 8  # of an image with several signs
ROUNDS = 2  # of the ascent to signs for which K x is large: further rounds change few signs
SIGNS = 2e5  # work of a step of the ascent, .3 ms: on a part of the grid, if it is large
BATCH = 2**17  # numbers solved at once, 4 times as many where each solve factors matrices
PIXELS = 64  # enough to judge a map that is the same at every pixel

# --- which way K x runs ----------------------------------------------------------------------
TAPS = 2.0**23  # products up to which K x is a sum over taps or a series, as the user's may be
COMPILED = 8e6  # work of a sum over taps from which on it pays to compile the kernel

# --- condition numbers -----------------------------------------------------------------------
EXACT_NUMBERS = 512**2  # columns x unknowns of an exact norm, at most: a few ms, or 512 unknowns
EXACT_PRODUCTS = 2.0**30  # products of an exact norm at most: with wide kernels it takes as long
ESTIMATE = 2.0**19  # work of compiled kernels for a norm's estimate: with all steps within 200 ms
REMEMBERED = 64  # results that an operator remembers, of all kinds and grids

# --- blocks of a stream ---------------------------------------------------------------------
ENDLESS = 1e6  # pixels: growth so slow counts as none: double poles at |z| = 1 round to 1 + 1e-8
COMPANION = 128  # channels x taps along an axis, at most: their eigenvalues take some ms
ZEROS = 8  # blocks of zeros that are solved, at most; one suffices where nothing grows

# --- advice ----------------------------------------------------------------------------------
GROWS = 0.5  # digits lost over a grid: with more, the advice names the largest grid
FARTHEST = 4  # times the grid: growth is not extrapolated farther
FACTORS_GROW = 100  # loss of a matrix's factors over its condition: beyond it they are to blame
GROWING = 1.01  # per pixel: less is called slow, if half of an axis costs SLOW digits
SLOW = 0.1
ROOM = 1e-9  # least max_gain - 1: with less, the shares of many factors would round to 1
