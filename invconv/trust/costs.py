"""The work that judgements may take, counted in additions of arrays of one number."""

# --- how many images make a round trip -------------------------------------------------------
CYCLE = 5  # images that find what is lost beyond doubt: one of each kind
FEW, MORE = 24, 3  # of a call; times as many near the limit, as samples differ tenfold there
DIAGNOSED = 96  # images of a diagnosis: the worst of them is within half a digit of any other's
WORK = 2e7  # of a call's images, 30 ms: with what factors within 3 solves and 50 ms
BATCH = 2**17  # numbers solved at once: memory, and solves that factor each time
PIXELS = 64  # enough to judge a map that is the same at every pixel

# --- which way K x runs ----------------------------------------------------------------------
TAPS = 2.0**23  # products up to which a spectral K x is a sum over taps, as the user's own may be
COMPILED = 8e6  # work of a sum over taps from which it takes longer not to compile the kernel

# --- condition numbers -----------------------------------------------------------------------
EXACT_NUMBERS = 512**2  # columns x unknowns of an exact norm, at most: a few ms, or 512 unknowns
EXACT_PRODUCTS = 2.0**30  # products of an exact norm at most: with wide kernels it takes as long
ESTIMATE = 2.0**19  # work of compiled kernels for a norm's estimate: with all steps within 200 ms
REMEMBERED = 64  # results that an operator remembers, of all kinds and grids
