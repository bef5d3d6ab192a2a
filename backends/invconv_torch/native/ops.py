"""The kernels as custom operators of PyTorch, for traced code: each is one node in a graph.

torch.compile and torch.export do not trace into the operators, and unroll no solve. The switches of
`invconv_torch.precision` are set when the graph runs, not when it is traced. Families of matrices
are passed as text, a type that an operator may take.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from invconv.kernels import exponential as core
from invconv.kernels.families import LinearFamily
from invconv.kernels.frequencies import spectrum
from invconv_torch.native import kernels

Tensor: TypeAlias = torch.Tensor


@functools.lru_cache(maxsize=256)
def family_of(text: str) -> Any:
    """Return the family with this ``text``, such as "TriangularFamily(lower=True)"."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    settings = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    return LinearFamily.named[call.func.id](**settings)


@torch.library.custom_op("invconv::apply", mutates_args=())  # type: ignore[untyped-decorator]
def apply(family: str, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; see `invconv.kernels.rules`."""
    return _own(kernels.apply(family_of(family), w, x), x)


@torch.library.custom_op("invconv::gram", mutates_args=())  # type: ignore[untyped-decorator]
def gram(family: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    return _own(kernels.gram(family_of(family), x, y), x)


@torch.library.custom_op("invconv::solve", mutates_args=())  # type: ignore[untyped-decorator]
def solve(family: str, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y."""
    return _own(kernels.solve((family_of(family), None), w, y), y)


@torch.library.custom_op("invconv::matmul", mutates_args=())  # type: ignore[untyped-decorator]
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    return _own(kernels.matmul(None, a, b), a)


@torch.library.custom_op("invconv::exponential", mutates_args=())  # type: ignore[untyped-decorator]
def exponential(family: str, w: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """Return a derivative of e^M(w) x, in directions (k, T, C, C); see `kernels.exponential`."""
    return _own(core.exponential.agnostic(family_of(family), w, x, *directions.unbind()), x)


@torch.library.custom_op("invconv::exponential_gram", mutates_args=())  # type: ignore[untyped-decorator]
def exponential_gram(family: str, w: Tensor, x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Return the gradient by one more direction; see `kernels.exponential`."""
    return _own(core.exponential_gram.agnostic(family_of(family), w, x, y, *directions.unbind()), x)


@torch.library.custom_op("invconv::spectral_log_det", mutates_args=())  # type: ignore[untyped-decorator]
def spectral_log_det(family: str, kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the sum over frequencies of log|det K_hat(f)|; see `kernels.frequencies`."""
    log_det: Tensor = spectrum.spectral_log_det.agnostic(kernel, family_of(family), tuple(shape))
    return log_det


@torch.library.custom_op("invconv::spectral_log_det_vjp", mutates_args=())  # type: ignore[untyped-decorator]
def spectral_log_det_vjp(family: str, kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the gradient of `spectral_log_det` with respect to the kernel."""
    gradient: Tensor = spectrum.spectral_log_det_vjp(kernel, family_of(family), tuple(shape))
    return _own(gradient, kernel)


def _own(result: Tensor, argument: Tensor) -> Tensor:
    """Return a result in the default layout that shares no memory with an argument."""
    result = result.contiguous()
    return result.clone() if result.data_ptr() == argument.data_ptr() else result


def _one_by_one(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return a vmap rule that runs the operator once for each element."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        mapped = {i for i, axis in enumerate(in_dims) if isinstance(axis, int)}
        rows = [
            operator(
                *(a.select(in_dims[i], n) if i in mapped else a for i, a in enumerate(arguments))
            )
            for n in range(info.batch_size)
        ]
        return torch.stack(rows), 0

    return rule


def _on_images(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return a vmap rule that joins images to one batch if the weights are not mapped over."""

    def rule(
        info: Any, in_dims: tuple[Any, ...], family: str, w: Tensor, x: Tensor
    ) -> tuple[Tensor, int]:
        if isinstance(in_dims[1], int) or family_of(family).lowers == "triangle":
            alone: tuple[Tensor, int] = _one_by_one(operator)(info, in_dims, family, w, x)
            return alone
        images = x.movedim(in_dims[2], 0)
        return operator(family, w, images.flatten(0, 1)).unflatten(0, images.shape[:2]), 0

    return rule


def _register(operator: Any, like: Callable[..., Tensor], vmap: Callable[..., Any]) -> None:
    """Register an operator's result without values, and its rule for `torch.func.vmap`."""
    operator.register_fake(like)
    operator.register_vmap(vmap(operator))


_register(apply, lambda family, w, x: x.new_empty(x.shape), _on_images)
_register(solve, lambda family, w, y: y.new_empty(y.shape), _on_images)
_register(gram, lambda family, x, y: x.new_empty(family_of(family).shape_of(x)), _one_by_one)
_register(matmul, lambda a, b: a.new_empty(torch.matmul(a, b).shape), _one_by_one)
_register(exponential, lambda family, w, x, v: x.new_empty(x.shape), _one_by_one)
_register(exponential_gram, lambda family, w, x, y, v: w.new_empty(w.shape), _one_by_one)
_register(spectral_log_det, lambda family, w, shape: w.new_empty(()), _one_by_one)
_register(spectral_log_det_vjp, lambda family, w, shape: w.new_empty(w.shape), _one_by_one)
