"""MLX adapter of invconv: what the core's agnostic code needs beside MLX's own functions.

The core imports it by itself when it first sees an array of MLX. Operators run eagerly, in float32.
"""

try:
    import mlx.core as _mx  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_mlx needs MLX: pip install 'invconv[mlx]'") from error
