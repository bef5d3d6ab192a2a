"""Solves on PyTorch: what is factored once, and how a factored operator runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from invconv.arrays import readable
from invconv.families import CausalFamily, SpectralFamily
from invconv.pitched import Layout
from invconv.planes import PitchedSolver
from invconv.primitives import from_pixel_rows, pixel_rows
from invconv.relay import Relay
from invconv.spectrum import from_frequencies, stable_spectral_inverse, to_frequencies
from invconv.tiles import Costs
from invconv.wavefront import stable_inverse
from invconv_torch import waves

Tensor: TypeAlias = torch.Tensor

_CPU = Costs(call=2e-6, solves_first=True, adds=True, narrow=12)
_ELSEWHERE = Costs(call=2e-6)
_LANES = {torch.float32: 16, torch.float64: 12}  # products of fewer columns take MKL twice as long


@dataclass(frozen=True, eq=False)
class PitchedTorchSolver(PitchedSolver):
    """The pitched wave with `torch.mm` into strided views."""

    @property
    def costs(self) -> Costs:
        """What products cost here."""
        return _CPU if self.causal.taps.device.type == "cpu" else _ELSEWHERE

    def _choose(self, shape: tuple[int, ...], itemsize: int) -> tuple[Layout | Relay, list[Tensor]]:
        plan, matrices = super()._choose(shape, itemsize)
        if isinstance(plan, Relay) or not plan.own or matrices[0].device.type != "cpu":
            return plan, matrices
        more = _LANES.get(matrices[0].dtype, 0) - plan.size
        if more > 0:
            matrices = [torch.nn.functional.pad(m, (0, more)) for m in matrices]
        return plan, matrices

    def _wave(self, plan: Layout, matrices: list[Tensor], y: Tensor) -> Tensor:
        if not plan.own:
            return waves.solved_first(plan, matrices, y)
        return waves.pitched(plan, matrices, y, self._substitute if self.inverse is None else None)

    def _relay(self, plan: Relay, matrix: Tensor, y: Tensor) -> Tensor:
        return waves.relayed(plan, matrix, y)

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
