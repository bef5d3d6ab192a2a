"""What every library's launches must do, on a GPU and on the stand-in for the driver alike.

`of_torch`, `of_cupy` and `of_jax` raise AssertionError where the kernel is not reached, where a
solution is not that of the dense matrix or has other bits than the CPU's, and where a transformed
solve (compiled, mapped, differentiated) is not what it is by the dense matrix.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.table import skewed
from invconv_conformance.truth import oracle

Floats = np.ndarray[Any, Any]
Shape = tuple[int, ...]

SMALL: tuple[Shape, ...] = ((4, 3, 5, 7),)
SHAPES: tuple[Shape, ...] = (*SMALL, (1, 12, 64, 64), (3, 48, 16, 16), (2, 2, 3, 5, 4))
_DENSE = 4000  # numbers of an image whose matrix is formed


def convolution(channels: int, dtype: str, ndim: int, skew: float = 0.0) -> ic.AutoregressiveConv:
    """Return an operator of NumPy; if it is skewed, D^-1 is not folded into its weights."""
    rng, like = np.random.default_rng(0), np.zeros((), dtype)
    conv = ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, like=like)
    return skewed(conv, skew)  # type: ignore[no-any-return]


def images(shape: Shape, dtype: str) -> Floats:
    """Return random images."""
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def dense(conv: ic.InvertibleConv, grid: Shape) -> Floats:
    """Return the inverse of the matrix, formed pixel by pixel."""
    return np.linalg.inv(oracle.affine(conv, grid)[0])


def check(conv: ic.AutoregressiveConv, y: Floats, x: Floats) -> None:
    """Compare a solution with the dense matrix's, and with that of the CPU's kernel."""
    wide = conv.asarrays(np.zeros(()))
    if y[0].size <= _DENSE:
        wanted = (y.reshape(len(y), -1).astype(float) @ dense(wide, y.shape[2:]).T).reshape(y.shape)
        assert np.abs(x - wanted).max() <= 100 * np.finfo(y.dtype).eps * np.abs(wanted).max()
    else:
        rest, size = wide.forward(x.astype(float)) - y, np.abs(x).max() + np.abs(y).max()
        assert np.abs(rest).max() <= 100 * np.finfo(y.dtype).eps * size
    solver = conv.prepare(y.shape[2:], check=False)
    assert solver.plan.method == "compiled kernel", "no kernel of the CPU to compare with"
    np.testing.assert_array_equal(x, solver._state.solve(y))


def check_solves(
    shapes: Sequence[Shape], carry: Callable[[Floats], Any], to_host: Callable[[Any], Floats]
) -> None:
    """Check prepared solves, which must be the kernel's, of arrays that a function carries over."""
    for shape, dtype, skew in itertools.product(shapes, ("float32", "float64"), (0.0, 2.0)):
        conv, values = convolution(shape[1], dtype, len(shape) - 2, skew), images(shape, dtype)
        y = carry(values)
        prepared = conv.asarrays(y).prepare(shape[2:], check=False)
        assert prepared.plan.method == "CUDA kernel", prepared.plan
        check(conv, values, to_host(prepared._state.solve(y)))


def of_torch(device: str, shapes: Sequence[Shape] = SHAPES) -> None:
    """Check PyTorch's launches for tensors on a device."""
    import torch

    check_solves(shapes, lambda y: torch.from_numpy(y).to(device), lambda x: x.cpu().numpy())
    host, values, inverse = _transformed()
    y = torch.from_numpy(values).to(device)
    there: Any = host.asarrays(y)
    compiled = torch.compile(there.inverse, fullgraph=True, backend="aot_eager")
    pairs = torch.func.vmap(there.inverse)(y.unflatten(0, (2, -1))).flatten(0, 1)
    for x in (compiled(y), pairs):
        check(host, values, x.cpu().numpy())
    leaf, kernel = y.clone().requires_grad_(), there.kernel.clone().requires_grad_()
    x = there.replace(kernel=kernel).inverse(leaf)
    found = torch.autograd.grad(x, (leaf, kernel), y)
    _check_gradients(host, values, inverse, *(g.cpu().numpy() for g in found))


def of_cupy(shapes: Sequence[Shape] = SHAPES) -> None:
    """Check CuPy's launches."""
    import array_api_compat.cupy as cupy

    from invconv.arrays.namespaces import to_numpy

    check_solves(shapes, cupy.asarray, to_numpy)
    host, values, inverse = _transformed()
    y = cupy.asarray(values)
    gradients, y_bar = host.asarrays(y).inverse_vjp(y, y)
    _check_gradients(host, values, inverse, to_numpy(y_bar), to_numpy(gradients["kernel"]))


def of_jax(shapes: Sequence[Shape] = SHAPES) -> None:
    """Check what XLA launches, on JAX's first device; it must have float64."""
    import jax
    from jax import numpy as jnp

    import invconv_jax  # noqa: F401 - makes operators pytrees

    check_solves(shapes, jnp.asarray, np.asarray)
    host, values, inverse = _transformed()
    y = jnp.asarray(values)
    there: Any = host.asarrays(y)
    compiled = jax.jit(lambda conv, y: conv.inverse(y)).lower(there, y).compile()
    assert "invconv_cuda_solve" in compiled.as_text()
    mapped = jax.vmap(there.inverse)(y.reshape(2, -1, *y.shape[1:])).reshape(y.shape)
    for x in (compiled(there, y), mapped):
        check(host, values, np.asarray(x))
    pairing = jax.grad(lambda k, z: (there.replace(kernel=k).inverse(z) * y).sum(), argnums=(0, 1))
    kernel_bar, y_bar = jax.jit(pairing)(there.kernel, y)
    _check_gradients(host, values, inverse, np.asarray(y_bar), np.asarray(kernel_bar))


def _transformed() -> tuple[ic.AutoregressiveConv, Floats, Floats]:
    (shape,) = SMALL
    host, values = convolution(shape[1], "float64", len(shape) - 2), images(shape, "float64")
    return host, values, dense(host, shape[2:])


def _check_gradients(
    host: ic.AutoregressiveConv, values: Floats, inverse: Floats, y_bar: Floats, kernel_bar: Floats
) -> None:
    """Compare with K^-T x_bar, and with the slope along a direction in the kernel; x_bar is y."""
    rows = values.reshape(len(values), -1)
    np.testing.assert_allclose(y_bar.reshape(rows.shape), rows @ inverse, rtol=1e-9, atol=1e-9)
    step = 1e-6 * images(host.kernel.shape, "float64")
    ends = [host.replace(kernel=host.kernel + s * step).inverse(values) for s in (1, -1)]
    slope = ((ends[0] - ends[1]) * values).sum() / 2
    np.testing.assert_allclose((kernel_bar * step).sum(), slope, rtol=1e-6)
