"""Our operators in PyTorch's own: for programs that run where invconv_torch is not imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from invconv.kernels.convolutions import CausalFamily, CircularFamily
from invconv.kernels.frequencies.products import within_range
from invconv_torch.exporting.waves import causal_solve, lanes_of
from invconv_torch.native import kernels, ops

Tensor: TypeAlias = torch.Tensor
_OURS = torch.ops.invconv


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's table for `ExportedProgram.run_decompositions`, with our operators in it.

    What it leaves of a program needs no import of invconv_torch, where it is loaded or compiled.

    Examples
    --------
    >>> import torch, invconv_torch
    >>> layer = invconv_torch.AutoregressiveConv1d(2)
    >>> program = torch.export.export(layer, (torch.zeros(1, 2, 8),))
    >>> program = program.run_decompositions(invconv_torch.decompositions())
    >>> [str(node.target) for node in program.graph.nodes if "invconv" in str(node.target)]
    []
    """
    table: dict[Any, Callable[..., Any]] = torch.export.default_decompositions()
    table.update(_TABLE)
    return table


def _apply(family: str, w: Tensor, x: Tensor) -> Tensor:
    return kernels.apply(ops.family_of(family), w, x)


def _gram(family: str, x: Tensor, y: Tensor) -> Tensor:
    return kernels.gram(ops.family_of(family), x, y)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def _solve(family: str, w: Tensor, y: Tensor) -> Tensor:
    known = ops.family_of(family)
    if isinstance(known, CausalFamily):
        return _causal_solve(known, w, y)
    if isinstance(known, CircularFamily):
        return within_range(lambda y: _circular_solve(known, w, y), y)
    return kernels.solve((known, None), w, y)


def _causal_solve(family: CausalFamily, w: Tensor, y: Tensor) -> Tensor:
    def substitute(y: Tensor, diagonal: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(diagonal, y, upper=not family.lower)

    shape = tuple(map(int, y.shape[2:]))
    c = family.stencil(w).within(shape)
    lanes = lanes_of(c, shape, torch, device=y.device)
    return causal_solve(c, lanes, y, substitute, c.diagonal)


def _circular_solve(family: CircularFamily, w: Tensor, y: Tensor) -> Tensor:
    """Solve with the spectrum of what A(w) makes of a unit pulse in each channel."""
    shape = tuple(map(int, y.shape[2:]))
    sides = [side for n in reversed(shape) for side in (0, n - 1)]
    unit = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    pulses = F.pad(unit.reshape(*unit.shape, *[1] * len(shape)), sides)
    basis = family.basis
    spectrum = basis.to_frequencies(kernels.apply(family, w, pulses))
    lu, pivots, _ = torch.linalg.lu_factor_ex(spectrum)  # which never raises
    x_hat = torch.linalg.lu_solve(lu, pivots, basis.to_frequencies(y))
    return basis.from_frequencies(x_hat, shape)


def _exponential(family: str, w: Tensor, x: Tensor, *more: Tensor) -> Tensor:
    raise NotImplementedError(
        "invconv_torch.decompositions: ExponentialConv has none, since its series has as many "
        "terms as the values of the kernel ask for; leave its operators in the program and import "
        "invconv_torch where it runs. In a file of torch.onnx.export the kernel is a constant"
    )


_TABLE = {
    _OURS.apply.default: _apply,
    _OURS.gram.default: _gram,
    _OURS.exponential.default: _exponential,
    _OURS.exponential_gram.default: _exponential,
    _OURS.matmul.default: _matmul,
    _OURS.solve.default: _solve,
}
