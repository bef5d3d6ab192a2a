"""CuPy adapter of invconv: native primitives, on the code that NumPy runs.

The core imports it by itself when it first runs a primitive on a CuPy array. As with CuPy's own
functions, work is queued on the current stream of the current device, where the arrays must be:
``with cupy.cuda.Device(1): conv.inverse(y)``. Nothing waits for the work, and no value is read.
"""

try:
    import cupy as _cupy  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_cupy needs CuPy: pip install 'invconv[cupy]'") from error
