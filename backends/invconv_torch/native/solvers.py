"""Factored operators on PyTorch, and their solves, on the CPU and on devices.

On devices solves run by the kernel of CUDA, or by plain wavefronts. Memory comes from torch's pool,
and launches go to torch's current stream: a solve runs in the order of the program, and
torch.cuda.graph records it. As always in PyTorch, call it once before the recording, to compile and
load the code. Nothing here waits for a device, or reads a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from invconv.arrays.namespaces import readable
from invconv.families.convolutions import Causal
from invconv.kernels.cpu.compiled import CompiledSolve, available, compiled_solve, require_images
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.frequencies import products
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.products import SpectralProduct, within_range
from invconv.kernels.frequencies.spectrum import kernel_spectrum, stable_spectral_inverse
from invconv.kernels.pitched import PitchedSolver, StridedOps
from invconv.kernels.primitives import Plan
from invconv.kernels.wavefront import CausalStencil, inverse_at_the_pixel
from invconv_torch.native.host import in_host_memory
from invconv_torch.precision import full_precision
from invconv_torch.traced import bare, differentiated


def _matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    torch.mm(a, b, out=out)


def _substitute(diagonal: Tensor, rows: Tensor, lower: bool) -> Tensor:
    return torch.linalg.solve_triangular(diagonal.mT, rows, upper=lower, left=False)


TORCH = StridedOps(Tensor.as_strided, _matmul, full_precision, Tensor.copy_, _substitute)


def _ordinal(x: Tensor) -> int | None:
    """Return the number of the device; None for fake tensors and on AMD's devices, "cuda" too."""
    there = x.device.type == "cuda" and bare(x) and torch.version.cuda is not None
    return x.device.index if there else None


def _stream(x: Tensor) -> int:
    return int(torch.cuda.current_stream(x.device).cuda_stream)


def _contiguous(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


CUDA = DeviceOps(_ordinal, Tensor.data_ptr, _stream, _contiguous)


@dataclass(frozen=True, eq=False)
class CausalFactor:
    """An autoregressive convolution, factored for a grid, by the quickest way that runs there."""

    family: Causal
    weights: Tensor
    shape: tuple[int, ...]
    state: CompiledSolve | DeviceSolve | PitchedSolver

    @staticmethod
    def of(family: Causal, weights: Tensor, shape: tuple[int, ...]) -> CausalFactor:
        """Factor the convolution with these weights, detached."""
        weights = weights.detach()
        return CausalFactor(family, weights, shape, _causal_state(family.stencil(weights), shape))

    @property
    def plan(self) -> Plan:
        """How the solve runs."""
        return self.state.plan

    def transpose(self) -> CausalFactor:
        """Return the factored transpose."""
        return self.of(self.family.transpose(), self.family.adjoint(self.weights), self.shape)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape)."""
        if not isinstance(self.state, CompiledSolve):
            return self.state(y)
        y = y.resolve_neg().contiguous()
        x = torch.empty_like(y)
        require_images(self.state.images, tuple(y.shape), y.element_size())
        self.state.run(y.data_ptr(), x.data_ptr(), y.shape[0], torch.get_num_threads(), y, x)
        return x

    def __reduce__(self) -> Any:
        """Pickle without the state: the layout of weights depends on the processor."""
        return CausalFactor.of, (self.family, self.weights, self.shape)


def _causal_state(
    c: CausalStencil, shape: tuple[int, ...]
) -> CompiledSolve | DeviceSolve | PitchedSolver:
    """Return a factored solve, by the quickest way that runs on the device."""
    if in_host_memory(c.taps) and available(c.taps.element_size()):
        return compiled_solve(
            torch.cat([c.diagonal[None], c.taps]).numpy(force=True), c.sweep.on(shape)
        )
    if CUDA.ordinal(c.taps) is not None:
        state = device_solve(torch.cat([c.diagonal[None], c.taps]), c.sweep.on(shape), CUDA)
        if state is not None:
            return state
    return PitchedSolver(c, inverse_at_the_pixel(c), shape, TORCH)


@dataclass(frozen=True, eq=False)
class SpectralFactor:
    """A spectrum with its inverse, or its LU factors (which never raise and never synchronise)."""

    basis: Basis
    shape: tuple[int, ...]
    product: SpectralProduct | None
    lu: tuple[Tensor, Tensor] | None
    adjoint: bool = False

    @staticmethod
    def of(
        basis: Basis, kernel: Tensor, shape: tuple[int, ...], quiet: bool = False
    ) -> SpectralFactor:
        """Factor a kernel's spectrum; ``quiet``, without errors, if it may be singular."""
        spectrum = kernel_spectrum(kernel.detach(), basis, shape)
        if readable(spectrum) and not quiet:
            inverse = stable_spectral_inverse(spectrum)
            if inverse is not None:
                return SpectralFactor(basis, shape, SpectralProduct(inverse, basis, shape), None)
        lu, pivots, _ = torch.linalg.lu_factor_ex(spectrum)
        return SpectralFactor(basis, shape, None, (lu, pivots))

    @property
    def plan(self) -> Plan:
        """How the solve runs."""
        kept = "LU factors" if self.product is None else "cached inverse"
        return Plan("spectral", per_frequency=kept)

    def transpose(self) -> SpectralFactor:
        """Return the factored transpose."""
        turned = None if self.product is None else self.product.transposed
        basis = self.basis.transpose()
        return replace(self, basis=basis, product=turned, adjoint=not self.adjoint)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape)."""
        if self.product is not None:
            return self.product(y)
        return within_range(self._solve, y) if y.shape[0] else y

    def _solve(self, y: Tensor) -> Tensor:
        assert self.lu is not None
        y_hat = self.basis.to_frequencies(y)
        x_hat = torch.linalg.lu_solve(*self.lu, y_hat, adjoint=self.adjoint)
        return self.basis.from_frequencies(x_hat, self.shape).contiguous()


def by_frequencies(product: SpectralProduct, y: Tensor) -> Tensor:
    """See `invconv.kernels.frequencies.products.by_frequencies`."""
    if not (y.is_cpu and bare(y)) or differentiated(y):
        return products.by_frequencies.agnostic(product, y)
    if not product.prefers_kernel(y.shape[0], y.element_size()):
        return products.by_frequencies.agnostic(product, y).contiguous()
    return run_compiled(product, y)


def run_compiled(product: SpectralProduct, y: Tensor) -> Tensor:
    """Return the product of `by_frequencies`, computed by the compiled kernel."""
    y = y.resolve_neg().contiguous()
    x = torch.empty_like(y)
    require_images(product.compiled.images, tuple(y.shape), y.element_size())
    product.compiled.run(y.data_ptr(), x.data_ptr(), y.shape[0], torch.get_num_threads(), y, x)
    return x


Factor: TypeAlias = CausalFactor | SpectralFactor
