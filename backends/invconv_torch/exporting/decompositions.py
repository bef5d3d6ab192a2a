"""Our operators in terms of PyTorch's own, for programs that run without invconv_torch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from invconv.arrays.stencil import at_end, seen
from invconv.families.convolutions import BorderedFamily, Causal, Spectral
from invconv.kernels.frequencies.spectrum import within_range
from invconv.kernels.wavefront import lanes_of
from invconv_torch.exporting.constant import along, causal_solve, fixed
from invconv_torch.native import kernels, nodes
from invconv_torch.primitives import log_of_pivots


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return PyTorch's table for `ExportedProgram.run_decompositions`, with our operators in it.

    The decomposed program can be loaded and compiled without importing invconv_torch. It runs on
    one grid. Filters, `ExponentialConv` and gradients of a spectral log-determinant are refused.

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


def _run(operation: str, family: str, grid: Sequence[int], *tensors: Tensor) -> Tensor:
    name, known = "invconv_torch.decompositions", nodes.family_of(family)
    if operation == "matmul":
        return torch.matmul(*tensors)
    if operation == "log_abs_det":
        return log_of_pivots(tensors[0])
    if operation == "spectral_log_det":
        return _spectral_log_det(known, tensors[0], fixed(name, grid))
    if operation not in _OF_IMAGES:
        raise NotImplementedError(
            f"{name}: expected no filter, no gradient of a spectral log-determinant, and no "
            "ExponentialConv, whose series has as many terms as its kernel asks for, got "
            f"{operation}; leave our operators in the program, import invconv_torch where it runs"
        )
    if known.lowers == "taps":
        fixed(name, tensors[-1].shape[2:])
    return _OF_IMAGES[operation](known, *tensors)


def _apply(known: Any, w: Tensor, x: Tensor) -> Tensor:
    whole = getattr(known, "whole", None)
    if whole is None or isinstance(whole.wrap, bool):
        return kernels.apply(known, w, x)
    y = kernels.apply(whole.inside, known.unfolded(w), _continued(whole, x))
    return torch.as_tensor(whole.cropped(y))


def _gram(known: Any, x: Tensor, y: Tensor) -> Tensor:
    whole = getattr(known, "whole", None)
    if whole is None or isinstance(whole.wrap, bool):
        return kernels.gram(known, x, y)
    bar = kernels.gram(whole.inside, _continued(whole, x), whole.in_zeros(y))
    return torch.as_tensor(known.folded(bar))


def _continued(whole: BorderedFamily, x: Tensor) -> Tensor:
    """Return `BorderedFamily.continued` of x, computed without constants."""
    sides = zip(whole.margins, whole.borders, strict=True)
    for axis, ((before, behind), border) in enumerate(sides, 2):
        n = int(x.shape[axis])
        positions = torch.arange(-before, n + behind, device=x.device)
        places, signs = seen(border, positions, n)
        x = x.index_select(axis, places)
        if border in ("odd", "zero", "transposed mirror"):
            signs = signs.reshape(-1, *[1] * (x.ndim - 1 - axis))
            x = torch.where(signs == 0, 0.0, signs * x)
    return x


def _solve(known: Any, w: Tensor, y: Tensor) -> Tensor:
    if known.solved == "causal":
        return _causal_solve(known, w, y)
    if known.solved == "spectral":
        return within_range(lambda y: _spectral_solve(known, w, y), y)
    return kernels.solve((known, None), w, y)


_OF_IMAGES = {"apply": _apply, "gram": _gram, "solve": _solve}


def _causal_solve(family: Causal, w: Tensor, y: Tensor) -> Tensor:
    def substitute(y: Tensor, diagonal: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(diagonal, y, upper=not family.lower)

    shape = tuple(map(int, y.shape[2:]))
    c = family.stencil(w).within(shape)
    lanes = lanes_of(c.sweep, torch, device=y.device)
    return causal_solve(c.others, lanes, y, substitute, c.diagonal)


def _spectral_solve(family: Spectral, w: Tensor, y: Tensor) -> Tensor:
    """Solve with phases and matrices of waves that the graph computes: see `Basis`."""
    basis, shape, back, x = family.basis, tuple(map(int, y.shape[2:])), [], y
    counts = basis.frequencies(shape)
    for axis, (waves, n, count) in enumerate(zip(basis.waves, shape, counts, strict=True), 2):
        if waves is None:
            continue
        m, p = torch.arange(count, device=y.device)[:, None], torch.arange(n, device=y.device)
        m, period = m + waves.first, waves.period(n)
        matrix = _turns(m * (2 * p + 1 + waves.beyond), 2 * period, y)[waves.first]
        if waves.beyond < 0:  # its own inverse, up to a factor
            matrix = matrix * (1 - at_end(m if waves.transposed else p, n) / 2)
            back.append((axis, matrix * 4 / period))
        else:
            back.append((axis, matrix.mT * torch.where(m.mT == 0, 2, 4) / period))
        x = along(x, axis, matrix.mT)
    axes = [2 + axis for axis in basis.closed]
    x = torch.fft.rfftn(x, dim=axes) if axes else x
    rows = x.flatten(2).permute(2, 1, 0)
    x_hat = torch.linalg.solve_ex(_spectrum(family, w, shape), rows)[0]  # never raises
    x = x_hat.permute(2, 1, 0).unflatten(2, counts)
    x = torch.fft.irfftn(x, s=[shape[axis] for axis in basis.closed], dim=axes) if axes else x
    for axis, matrix in back:
        x = along(x, axis, matrix.mT)
    return x


def _spectrum(family: Spectral, w: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the matrices of all frequencies, (F, C, C)."""
    basis = family.basis
    spectrum = torch.complex(w, torch.zeros_like(w)) if basis.closed else w
    counts = basis.frequencies(shape)
    sides = zip(family.kernel_size, family.dilation, basis.waves, shape, counts, strict=True)
    for axis, (k, dilation, waves, n, count) in enumerate(sides, 2):
        m, t = torch.arange(count, device=w.device)[:, None], torch.arange(k, device=w.device)
        if waves is None:
            phases = torch.complex(*_turns(m * (t - (k - 1) // 2) * dilation, n, w))
        else:
            turns = _turns((m + waves.first) * t, waves.period(n), w)[0]
            phases = turns * torch.where(t == 0, 1, 2)
        spectrum = along(spectrum, axis, phases.to(spectrum.dtype).mT)
    return spectrum.flatten(2).permute(2, 0, 1)


def _spectral_log_det(family: Spectral, w: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the sum of log of the determinants; half the frequencies stand for two each."""
    logs = log_of_pivots(_spectrum(family, w, shape))
    counts = family.basis.frequencies(shape)
    for axis in family.basis.closed[-1:]:
        m, n = torch.arange(counts[axis], device=w.device), shape[axis]
        twice = torch.where((m == 0) | (2 * m == n), 1, 2)
        logs = (logs.unflatten(0, counts).movedim(axis, -1) * twice).flatten()
    return logs.sum()


def _turns(steps: Tensor, period: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of 2 pi steps / period of integers; quarter turns are exact."""
    steps = steps % period
    angles = steps.double() * (2 * math.pi / period)
    cosines = torch.where(4 * steps % (2 * period) == period, 0.0, angles.cos())
    sines = torch.where(2 * steps % period == 0, 0.0, angles.sin())
    return cosines.to(like.dtype), sines.to(like.dtype)
