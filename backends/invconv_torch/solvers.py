"""Solves on PyTorch: what is factored once, and how a factored operator runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from invconv.arrays.namespaces import readable
from invconv.kernels.cpu.compiled import CompiledSolve, available, compiled_solve
from invconv.kernels.families import CausalFamily, SpectralFamily
from invconv.kernels.plain.pitched import PitchedSolver
from invconv.kernels.primitives import from_pixel_rows, pixel_rows
from invconv.kernels.spectrum import from_frequencies, stable_spectral_inverse, to_frequencies
from invconv.kernels.wavefront import inverse_at_the_pixel
from invconv_torch.correlation import in_host_memory
from invconv_torch.waves import TORCH

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True, eq=False)
class CausalFactor:
    """An autoregressive convolution, factored for a grid.

    Attributes
    ----------
    family : CausalFamily
    weights : tensor
    shape : tuple of int
        The grid.
    state : CompiledSolve or PitchedSolver
        The compiled kernel on tensors in host memory, where it runs; wavefronts elsewhere.
    """

    family: CausalFamily
    weights: Tensor
    shape: tuple[int, ...]
    state: CompiledSolve | PitchedSolver

    @staticmethod
    def of(family: CausalFamily, weights: Tensor, shape: tuple[int, ...]) -> CausalFactor:
        """Factor the convolution with these weights, on detached copies of what it needs."""
        weights = weights.detach()
        if in_host_memory(weights) and available(weights.element_size()):
            f = family
            state = compiled_solve(
                weights.numpy(force=True), shape, f.reach, f.direction, f.dilation, f.lower
            )
            return CausalFactor(family, weights, shape, state)
        causal = family.stencil(weights)
        inverse = inverse_at_the_pixel(causal)
        return CausalFactor(family, weights, shape, PitchedSolver(causal, inverse, shape, TORCH))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return self.state.plan

    def transpose(self) -> CausalFactor:
        """Return the factored transpose."""
        return self.of(self.family.transpose(), self.family.adjoint(self.weights), self.shape)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape)."""
        if isinstance(self.state, PitchedSolver):
            return self.state(y)
        y = y.detach().resolve_neg().contiguous()
        x = torch.empty_like(y)
        self.state.require(tuple(y.shape), y.element_size())
        self.state.solve(y.data_ptr(), x.data_ptr(), len(y), torch.get_num_threads(), y, x)
        return x

    def __reduce__(self) -> Any:
        """Leave the state out: another processor lays weights out in another way."""
        return CausalFactor.of, (self.family, self.weights, self.shape)


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
