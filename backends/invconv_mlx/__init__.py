"""MLX adapter of invconv, for eager work in float32 on Linux's CPUs and on Apple's processors.

The core imports it by itself when it first sees an array of MLX. Use one thread: MLX, by 0.32,
may crash where several compute with the same arrays.
"""

try:
    import mlx.core as _mx  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_mlx needs MLX: pip install 'invconv[mlx]'") from error
