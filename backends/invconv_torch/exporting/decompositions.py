"""Our operators in terms of PyTorch's own, for programs that run without invconv_torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from invconv.kernels.convolutions import CausalFamily, CircularFamily
from invconv.kernels.families import MIRROR, LinearFamily, StencilFamily
from invconv.kernels.frequencies.products import within_range
from invconv.kernels.lanes import lanes_of
from invconv.kernels.symmetric import MirroredFamily, SymmetricFamily
from invconv_torch.exporting.graphs import causal_solve
from invconv_torch.native import kernels, ops

Tensor: TypeAlias = torch.Tensor


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's table for `ExportedProgram.run_decompositions`, with our operators in it.

    The decomposed program can be loaded and compiled without importing invconv_torch.

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
    table[torch.ops.invconv.run.default] = _run
    return table


def _run(operation: str, family: str, tensors: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
    if operation.startswith("exponential"):
        raise NotImplementedError(
            "invconv_torch.decompositions: ExponentialConv has none, since its series has as many "
            "terms as the values of the kernel ask for; leave its operators in the program and "
            "import invconv_torch where it runs. In a file of torch.onnx.export the kernel is a "
            "constant"
        )
    known = ops.family_of(family)
    if operation == "matmul":
        return torch.matmul(*tensors)
    return {"apply": _apply, "gram": _gram, "solve": _solve}[operation](known, *tensors)


def _apply(known: Any, w: Tensor, x: Tensor) -> Tensor:
    if not _is_mirrored(known):
        return kernels.apply(known, w, x)
    whole = known.whole
    y = kernels.apply(
        StencilFamily(whole.offsets, False), whole.taps(known.unfolded(w)), _mirrored(whole, x)
    )
    return torch.as_tensor(whole.cropped(y))


def _gram(known: Any, x: Tensor, y: Tensor) -> Tensor:
    if not _is_mirrored(known):
        return kernels.gram(known, x, y)
    whole = known.whole
    taps = kernels.gram(
        StencilFamily(whole.offsets, False), _mirrored(whole, x), torch.as_tensor(whole.in_zeros(y))
    )
    return torch.as_tensor(known.folded(whole.kernel(taps)))


def _is_mirrored(family: LinearFamily) -> bool:
    return getattr(family, "wrap", None) == MIRROR


def _mirrored(whole: MirroredFamily, x: Tensor) -> Tensor:
    """Return `MirroredFamily.mirrored` of x, computed without constants."""
    for axis, k in enumerate(whole.kernel_size, 2):
        n = int(x.shape[axis])
        places = torch.arange(-(k // 2), n + k // 2, device=x.device) % (2 * n)
        x = x.index_select(axis, torch.minimum(places, 2 * n - 1 - places))
    return x


def _solve(known: Any, w: Tensor, y: Tensor) -> Tensor:
    if known.solved == "causal":
        return _causal_solve(known, w, y)
    if known.solved == "spectral":
        solve = _symmetric_solve if _is_mirrored(known) else _circular_solve
        return within_range(lambda y: solve(known, w, y), y)
    return kernels.solve((known, None), w, y)


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


def _symmetric_solve(family: SymmetricFamily, w: Tensor, y: Tensor) -> Tensor:
    """Solve with matrices of cosines, computed in the graph: see `kernels.frequencies.cosine`."""
    spectrum, x, back = w, y, []
    for axis, (h, n) in enumerate(zip(family.kernel_size, map(int, y.shape[2:]), strict=True), 2):
        m, t = torch.arange(n, device=y.device)[:, None], torch.arange(h, device=y.device)
        spectrum = _along(spectrum, axis, _cosines(m * t, 2 * n, y) * torch.where(t == 0, 1, 2))
        waves = _cosines(m * (2 * m.mT + 1), 4 * n, y)
        x = _along(x, axis, waves)
        back.append(waves.mT * torch.where(m.mT == 0, 1, 2) / n)
    x = torch.linalg.solve_ex(spectrum.flatten(2).permute(2, 0, 1), x.flatten(2).permute(2, 1, 0))[
        0
    ]
    x = x.permute(2, 1, 0).unflatten(2, y.shape[2:])
    for axis, matrix in enumerate(back, 2):
        x = _along(x, axis, matrix)
    return x


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    return torch.matmul(x.movedim(axis, -1), matrix.mT).movedim(-1, axis)


def _cosines(steps: Tensor, period: int, like: Tensor) -> Tensor:
    """Return cos(2 pi steps / period) of integers; quarter turns are exact."""
    steps = steps % period
    cosines = torch.cos(steps.double() * (2 * math.pi / period))
    return torch.where(4 * steps % (2 * period) == period, 0.0, cosines).to(like.dtype)
