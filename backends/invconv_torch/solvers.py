"""Solves on PyTorch: what is factored once, and how a factored operator runs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from invconv.arrays import readable
from invconv.families import CausalFamily, SpectralFamily
from invconv.numpy_primitives import Floats, costs
from invconv.pitched import Layout
from invconv.planes import PitchedSolver
from invconv.primitives import from_pixel_rows, pixel_rows
from invconv.relay import Relay
from invconv.spectrum import from_frequencies, stable_spectral_inverse, to_frequencies
from invconv.tiles import Costs
from invconv.wavefront import inverse_at_the_pixel
from invconv_torch import waves
from invconv_torch.in_memory import IN_MEMORY, fastest, in_small_products, memory, parts
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor

_ELSEWHERE = Costs(call=2e-6)


@dataclass(frozen=True, eq=False)
class PitchedTorchSolver(PitchedSolver):
    """The waves: NumPy's in a tensor's own memory on the CPU, elsewhere torch's."""

    @property
    def costs(self) -> Costs:
        """What products cost here."""
        return costs() if _on_host(self.causal.taps) else _ELSEWHERE

    def _parts(self, y: Tensor) -> int:
        return parts(y) if _on_host(y) else 1

    def _choose(
        self, shape: tuple[int, ...], parts: int, itemsize: int
    ) -> tuple[Layout | Relay, list[Any]]:
        taps = self.causal.taps
        with full_precision(taps):
            plan, matrices = super()._choose(shape, parts, itemsize)
            if parts > 1 and isinstance(plan, Layout) and not in_small_products(plan):
                plan, matrices = super()._choose(shape, 1, itemsize)
        return plan, [memory(m) for m in matrices] if _on_host(taps) else matrices

    def _wave(self, plan: Layout, matrices: list[Any], y: Tensor) -> Tensor:
        if not _on_host(y):
            with full_precision(y):
                substitute = self._substitute if self.inverse is None else None
                return waves.pitched(plan, matrices, y, substitute)
        x = torch.empty_like(y, memory_format=torch.contiguous_format)
        way = fastest(plan)
        in_memory = self._substitute_in_memory if self.inverse is None else None
        with nullcontext() if way is IN_MEMORY and in_memory is None else full_precision(y):
            way.pitched(plan, matrices, memory(y), memory(x), in_memory)
        return x

    def _relay(self, plan: Relay, matrices: list[Any], y: Tensor) -> Tensor:
        if not _on_host(y):
            with full_precision(y):
                return waves.relayed(plan, matrices[0], y)
        x = torch.empty_like(y, memory_format=torch.contiguous_format)
        IN_MEMORY.relay(plan, matrices, memory(y), memory(x))
        return x

    def _substitute(self, rhs: Tensor) -> Tensor:
        """Return D^-1 applied to rows (M, C)."""
        transposed, upper = self.causal.diagonal.mT, self.causal.lower
        return torch.linalg.solve_triangular(transposed, rhs, upper=upper, left=False)

    def _substitute_in_memory(self, rhs: Floats) -> Floats:
        return memory(self._substitute(torch.from_numpy(rhs)))


def _on_host(x: Tensor) -> bool:
    return bool(x.device.type == "cpu")


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
        solver = PitchedTorchSolver(causal, inverse_at_the_pixel(causal), shape)
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
