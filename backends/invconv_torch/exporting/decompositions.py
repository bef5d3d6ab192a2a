"""Our operators in terms of PyTorch's own, for programs that run without invconv_torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from invconv.kernels.convolutions import CausalFamily, CircularFamily
from invconv.kernels.families import MIRROR
from invconv.kernels.frequencies.products import within_range
from invconv.kernels.plain.lanes import lanes_of
from invconv_torch.exporting.waves import causal_solve
from invconv_torch.native import kernels, ops

Tensor: TypeAlias = torch.Tensor
_OURS = torch.ops.invconv


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's table for `ExportedProgram.run_decompositions`, with our operators in it.

    The decomposed program can be loaded and compiled without importing invconv_torch. SymmetricConv
    and ExponentialConv have no decompositions.

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


def _solve(family: str, w: Tensor, y: Tensor) -> Tensor:
    known = _known(family)
    if known.solved == "causal":
        return _causal_solve(known, w, y)
    if known.solved == "spectral":
        return within_range(lambda y: _circular_solve(known, w, y), y)
    return kernels.solve((known, None), w, y)


def _known(text: str) -> Any:
    """Return the family of a text, or raise if its operators have no decomposition."""
    family = ops.family_of(text)
    if getattr(family, "wrap", None) == MIRROR:
        raise _refusal("SymmetricConv", "its transforms are products with tables of cosines")
    return family


def _causal_solve(family: CausalFamily, w: Tensor, y: Tensor) -> Tensor:
    def substitute(y: Tensor, diagonal: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(diagonal, y, upper=not family.lower)

    shape = tuple(map(int, y.shape[2:]))
    c = family.stencil(w).within(shape)
    lanes = lanes_of(c, shape, torch, device=y.device)
    return causal_solve(c, lanes, y, substitute, c.diagonal)


def _circular_solve(family: CircularFamily, w: Tensor, y: Tensor) -> Tensor:
    """Solve with the spectrum: the transform of A(w) times a unit pulse in each channel."""
    shape = tuple(map(int, y.shape[2:]))
    sides = [side for n in reversed(shape) for side in (0, n - 1)]
    unit = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    pulses = F.pad(unit.reshape(*unit.shape, *[1] * len(shape)), sides)
    basis = family.basis
    spectrum = basis.to_frequencies(kernels.apply(family, w, pulses))
    lu, pivots, _ = torch.linalg.lu_factor_ex(spectrum)  # it never raises
    x_hat = torch.linalg.lu_solve(lu, pivots, basis.to_frequencies(y))
    return basis.from_frequencies(x_hat, shape)


def _exponential(family: str, w: Tensor, x: Tensor, *more: Tensor) -> Tensor:
    raise _refusal("ExponentialConv", "its series has as many terms as the kernel's values ask for")


def _refusal(name: str, why: str) -> NotImplementedError:
    return NotImplementedError(
        f"invconv_torch.decompositions: {name} has none, since {why}; leave its operators in the "
        "program and import invconv_torch where it runs. In a file of torch.onnx.export the kernel "
        "is a constant"
    )


_TABLE = {
    _OURS.apply.default: lambda family, w, x: kernels.apply(_known(family), w, x),
    _OURS.gram.default: lambda family, x, y: kernels.gram(_known(family), x, y),
    _OURS.exponential.default: _exponential,
    _OURS.exponential_gram.default: _exponential,
    _OURS.matmul.default: torch.matmul,
    _OURS.solve.default: _solve,
}
