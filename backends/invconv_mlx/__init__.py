"""MLX adapter of invconv, for eager work in float32, in one thread; run on Linux's CPU only.

The core imports it by itself when it first sees an array of MLX.
"""

try:
    import mlx.core as _mx  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_mlx needs MLX: pip install 'invconv[mlx]'") from error
