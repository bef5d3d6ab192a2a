"""Solves on PyTorch: what is factored once, and how a factored operator runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch

from invconv.arrays import readable
from invconv.families import CausalFamily, SpectralFamily
from invconv.pitched import Layout
from invconv.planes import PitchedSolver
from invconv.primitives import from_pixel_rows, pixel_rows
from invconv.relay import Relay
from invconv.spectrum import from_frequencies, stable_spectral_inverse, to_frequencies
from invconv.tile_matrices import Tile
from invconv.wavefront import stable_inverse
from invconv.workspaces import Workspaces

Tensor: TypeAlias = torch.Tensor
View: TypeAlias = tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]

_LANES = {torch.float32: 16, torch.float64: 12}  # products of fewer columns take MKL twice as long


@dataclass(frozen=True)
class Workspace:
    """A buffer laid out for one plan: its images, and (windows, x, sum, the sum's x) of each step.

    A sum is as wide as the weights, which may be padded.
    """

    images: Tensor
    steps: tuple[View, ...]
    nbytes: int


@dataclass(frozen=True)
class RelayWorkspace:
    """A buffer laid out for a relay: y and x in it, and (what is read, what is found) of a step.

    y and x are as they are copied.
    """

    given: tuple[Tensor, ...]
    found: tuple[Tensor, ...]
    steps: tuple[tuple[Tensor, Tensor], ...]
    nbytes: int


def _relay_workspace(plan: Relay, y: Tensor) -> RelayWorkspace:
    """Return a zeroed buffer and the views of every step."""
    with torch.inference_mode(False):
        buffer = torch.zeros(plan.length, dtype=y.dtype, device=y.device)
        row = (plan.record, 1)
        steps = tuple(
            (
                buffer.as_strided((count, plan.reads), row, reads),
                buffer.as_strided((count, plan.finds), row, finds),
            )
            for reads, finds, count in plan.steps
        )
        images = (buffer.as_strided(plan.shape, plan.strides, at) for at in (plan.entry, plan.exit))
        given, found = (tuple(whole[some] for some in plan.copies) for whole in images)
    return RelayWorkspace(given, found, steps, buffer.numel() * buffer.element_size())


def _workspace(plan: Layout, width: int, y: Tensor) -> Workspace:
    """Return a zeroed buffer and the views of every step, with sums of so many columns."""
    with torch.inference_mode(False):
        buffer = torch.zeros(plan.length, dtype=y.dtype, device=y.device)
        largest = max(count for _, count in plan.steps)
        scratch = torch.empty((largest, width), dtype=y.dtype, device=y.device)
        pitch = plan.strides[0]
        steps = []
        for place, count in plan.steps:
            windows = tuple(
                buffer.as_strided((count, size), (pitch, 1), place + shift)
                for shift, size in plan.windows
            )
            x = buffer.as_strided((count, plan.size), (pitch, 1), place)
            steps.append((windows, x, scratch[:count], scratch[:count, : plan.size]))
        images = buffer.as_strided(plan.shape, plan.strides, plan.start)
    return Workspace(images, tuple(steps), buffer.numel() * buffer.element_size())


_workspaces: Workspaces[Any] = Workspaces()
W = TypeVar("W")


def _kept(key: Hashable, make: Callable[[], W], y: Tensor) -> W:
    """Return a workspace, a kept one on the CPU; on CUDA, where a stream may not share one, new.

    New memory comes from torch's pool there, in a captured graph from the graph's own.
    """
    if type(y) is not torch.Tensor or y.device.type != "cpu":
        return make()
    found: W = _workspaces.get((key, y.dtype), make)
    return found


def _tiled(plan: Layout | Relay, x: Tensor) -> Tensor:
    """View images (B, C, H, W) as (B, H / h, h, W / w, w, C)."""
    batch, rows, high, columns, wide, channels = plan.shape
    tiled = x.view(batch, channels, rows, high, columns, wide)
    return tiled.permute(0, 2, 3, 4, 5, 1)


@dataclass(frozen=True, eq=False)
class PitchedTorchSolver(PitchedSolver):
    """The pitched wave with `torch.mm` into strided views."""

    call_seconds: ClassVar[float] = 2e-6
    multiplies_in: ClassVar[bool] = True

    def _choose(self, shape: tuple[int, ...], itemsize: int) -> tuple[Layout | Relay, list[Tensor]]:
        plan, matrices = super()._choose(shape, itemsize)
        if isinstance(plan, Relay) or not plan.own or matrices[0].device.type != "cpu":
            return plan, matrices
        more = _LANES.get(matrices[0].dtype, 0) - plan.size
        if more > 0:
            matrices = [torch.nn.functional.pad(m, (0, more)) for m in matrices]
        return plan, matrices

    def _wave(self, plan: Layout, matrices: list[Tensor], y: Tensor) -> Tensor:
        width = matrices[0].shape[1]
        work = _kept((plan, width), functools.partial(_workspace, plan, width, y), y)
        if plan.own:
            source = _tiled(plan, y)
            for some in plan.entries:
                work.images[some].copy_(source[some])
            self._run(work, matrices)
        else:
            self._add(plan, work, matrices, y)
        x = torch.empty_like(y)
        target = _tiled(plan, x)
        for some in plan.exits:
            target[some].copy_(work.images[some])
        return x

    def _relay(self, plan: Relay, matrix: Tensor, y: Tensor) -> Tensor:
        work = _kept(plan, functools.partial(_relay_workspace, plan, y), y)
        source = _tiled(plan, y)
        for some, given in zip(plan.copies, work.given, strict=True):
            given.copy_(source[some])
        for reads, finds in work.steps:
            torch.mm(reads, matrix, out=finds)
        x = torch.empty_like(y)
        target = _tiled(plan, x)
        for some, found in zip(plan.copies, work.found, strict=True):
            target[some].copy_(found)
        return x

    def _own(self, shape: tuple[int, ...], tile: Tile) -> bool:
        return self.causal.taps.device.type != "cpu" or super()._own(shape, tile)

    def _add(self, plan: Layout, work: Workspace, matrices: list[Tensor], y: Tensor) -> None:
        """Put D^-1 y into the buffer, as much at once as stays in the cache; let the wave pass."""
        assert self.inverse is not None
        transposed = self.inverse.mT
        for sample, images in zip(y, work.images[:, :, 0, :, 0], strict=True):
            for band in plan.bands:
                rows = torch.mm(sample[:, band].flatten(1).mT, transposed)
                images[band].copy_(rows.view(-1, *images.shape[1:]))
        for windows, x, _, _ in work.steps:
            for window, matrix in zip(windows, matrices, strict=True):
                x.addmm_(window, matrix)

    def _run(self, work: Workspace, matrices: list[Tensor]) -> None:
        """Let the wave pass."""
        first, *others = matrices
        for windows, x, total, found in work.steps:
            torch.mm(windows[0], first, out=total)
            for window, matrix in zip(windows[1:], others, strict=True):
                total.addmm_(window, matrix)
            x.copy_(found if self.inverse is not None else self._substitute(found))

    def _substitute(self, rhs: Tensor) -> Tensor:
        """Return D^-1 applied to rows (M, C)."""
        transposed, upper = self.causal.diagonal.mT, self.causal.lower
        return torch.linalg.solve_triangular(transposed, rhs, upper=upper, left=False)


@dataclass(frozen=True, eq=False)
class CausalFactor:
    """An autoregressive convolution, factored for a grid."""

    family: CausalFamily
    weights: Tensor
    solver: PitchedTorchSolver

    @staticmethod
    def of(family: CausalFamily, weights: Tensor, shape: tuple[int, ...]) -> CausalFactor:
        """Factor the convolution with these weights, on detached copies of what it needs."""
        weights = weights.detach()
        causal = family.stencil(weights)
        solver = PitchedTorchSolver(causal, stable_inverse(causal.diagonal), shape)
        return CausalFactor(family, weights, solver)

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return self.solver.plan

    def transpose(self) -> CausalFactor:
        """Return the factored transpose."""
        family, weights = self.family.transpose(), self.family.adjoint(self.weights)
        inverse = None if self.solver.inverse is None else self.solver.inverse.mT
        solver = PitchedTorchSolver(family.stencil(weights), inverse, self.solver.shape)
        return CausalFactor(family, weights, solver)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape)."""
        return self.solver(y)


@dataclass(frozen=True, eq=False)
class SpectralFactor:
    """A spectrum with its inverse, or its LU factors (which never raise and never synchronise)."""

    family: SpectralFamily
    inverse: Tensor | None
    lu: tuple[Tensor, Tensor] | None
    adjoint: bool = False

    @staticmethod
    def of(family: SpectralFamily, spectrum: Tensor, quiet: bool = False) -> SpectralFactor:
        """Factor a spectrum (F, C, C); ``quiet`` where nobody has looked whether it is singular."""
        spectrum = spectrum.detach()
        if readable(spectrum) and not quiet:
            inverse = stable_spectral_inverse(spectrum)
            if inverse is not None:
                return SpectralFactor(family, inverse, None)
        lu, pivots, _ = torch.linalg.lu_factor_ex(spectrum)
        return SpectralFactor(family, None, (lu, pivots))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        kept = "LU factors" if self.inverse is None else "cached inverse"
        return {"method": "spectral", "per frequency": kept}

    def transpose(self) -> SpectralFactor:
        """Return the factored transpose."""
        return replace(self, adjoint=not self.adjoint)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape)."""
        y_hat = to_frequencies(y)
        if self.inverse is not None:
            x_hat = torch.matmul(self.inverse.mH if self.adjoint else self.inverse, y_hat)
        else:
            assert self.lu is not None
            x_hat = torch.linalg.lu_solve(*self.lu, y_hat, adjoint=self.adjoint)
        return from_frequencies(x_hat, self.family.shape)


@dataclass(frozen=True, eq=False)
class MatrixFactor:
    """The QR factors of a matrix that is applied at every pixel."""

    q: Tensor
    r: Tensor
    adjoint: bool = False

    @staticmethod
    def of(matrix: Tensor) -> MatrixFactor:
        """Factor a matrix (C, C)."""
        return MatrixFactor(*torch.linalg.qr(matrix.detach()))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "QR factorisation"}

    def transpose(self) -> MatrixFactor:
        """Return the factored transpose."""
        return replace(self, adjoint=not self.adjoint)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *spatial)."""
        rows = pixel_rows(y)
        if self.adjoint:
            z = torch.linalg.solve_triangular(self.r.mT, rows, upper=False)
            return from_pixel_rows(torch.matmul(self.q, z), y.shape)
        rows = torch.matmul(self.q.mT, rows)
        x = torch.linalg.solve_triangular(self.r, rows, upper=True)
        return from_pixel_rows(x, y.shape)
