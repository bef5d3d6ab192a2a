"""How operations run on memory: maps of families, factored solves, correlations, at full precision.

On the CPU a compiled kernel runs, or PyTorch's own operations. On other devices solves run by the
CUDA kernel, or by plain wavefronts. Memory comes from PyTorch's pool, and launches go to its
current stream: solves run in the order of the program, and torch.cuda.graph records them. As always
in PyTorch, call a solve once before recording, to compile and load the code. Nothing here waits for
a device, or reads a value.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invconv.arrays.namespaces import readable
from invconv.arrays.stencil import Offset, Stencil
from invconv.families.convolutions import Causal, TapsFamily
from invconv.families.family import Family
from invconv.kernels import primitives
from invconv.kernels.cpu.compiled import CompiledSolve, compiled_solve, require_images
from invconv.kernels.cpu.correlate.correlation import CompiledCorrelation, compiled_correlation
from invconv.kernels.cpu.machine import reason
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.frequencies import spectrum
from invconv.kernels.frequencies.spectrum import (
    SpectralProduct,
    kernel_spectrum,
    stable_spectral_inverse,
    within_range,
)
from invconv.kernels.frequencies.waves import Basis
from invconv.kernels.pitched import PitchedSolver, StridedOps
from invconv.kernels.primitives import Plan, TapGrid, grid_of, pad
from invconv.kernels.wavefront import inverse_at_the_pixel
from invconv_torch.native.host import PLAIN, bare, laid_out
from invconv_torch.precision import full_precision

Settings: TypeAlias = Any  # a family, alone or with factors, counts of terms, or a grid


# --- maps of families --------------------------------------------------------------------------


def apply(family: Family, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; correlations run by the compiled kernel, or by PyTorch's convolution."""
    if family.lowers != "taps":  # products are primitives themselves
        return laid_out(torch.as_tensor(family.apply(w, x)), x)
    whole: Any = family
    if whole.wide:
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
    if family.spectral:
        whole, w = whole.whole, whole.unfolded(w)
    if (compiled := _compiled(whole, x)) is not None:  # it reads the weights in place
        x, w = x.resolve_neg(), w.resolve_neg()
        placed: Any = whole.placed(w.stride())
        if placed is None:
            w = w.contiguous()
            placed = whole.placed(w.stride())
        y = torch.empty_like(x)
        given = w.data_ptr() + placed[0] * w.element_size(), placed[1], x.data_ptr(), y.data_ptr()
        compiled.run(*given, x.shape[0], torch.get_num_threads(), w, x, y)
        return y
    if isinstance(whole.wrap, bool):
        return laid_out(convolve(whole.offsets, whole.wrap, whole.taps(w), x), x)
    # correlations do not know this border: images are copied with their margins
    y = apply(whole.inside, w, whole.continued(x))
    return laid_out(whole.cropped(y).contiguous(), x)


def gram(family: Family, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    taps: Any = family
    if family.lowers != "taps" or taps.wide:
        with full_precision(x):
            return torch.as_tensor(family.gram(x, y)).contiguous()
    whole = taps.whole if family.spectral else taps
    if (compiled := _compiled(whole, x)) is not None:
        x, y = x.resolve_neg(), y.resolve_neg().contiguous()
        batch = x.shape[0]
        parts = compiled.parts(batch, torch.get_num_threads())
        totals = x.new_zeros((parts, *whole.shape_of(x)))
        placed: Any = whole.placed(totals.stride()[1:])
        first = totals.data_ptr() + placed[0] * totals.element_size()
        given = x.data_ptr(), y.data_ptr(), first, placed[1], totals[0].nbytes
        compiled.run_vjp(*given, batch, parts, x, y, totals)
        bar = totals.sum(0)
    elif isinstance(whole.wrap, bool):
        bar = whole.kernel(convolve_vjp(whole.offsets, whole.wrap, x, y))
    else:
        bar = gram(whole.inside, whole.continued(x), whole.in_zeros(y))
    return torch.as_tensor(taps.folded(bar)) if family.spectral else bar


def add_pivots(kernel: Tensor, centre: Offset, v: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.add_pivots`."""
    if not bare(kernel, v, unrecorded=True):
        return torch.as_tensor(primitives.add_pivots.agnostic(kernel, centre, v))
    kernel[(..., *centre)].diagonal().add_(v)
    return kernel


def factor(family: Any, w: Tensor, shape: tuple[int, ...], quiet: bool) -> "Factored | None":
    """Factor A(w) for a grid; ``quiet``: not tested for singularity, so nothing may raise."""
    if family.solved == "causal":
        return FactoredCausal.of(family, w, shape)
    if family.solved != "spectral":
        return None
    basis: Basis = family.basis
    with full_precision(w):
        matrices = kernel_spectrum(w.detach(), basis, shape)
        if readable(matrices) and not quiet:
            inverse = stable_spectral_inverse(matrices)
            if inverse is not None:
                return FactoredSpectral(basis, shape, SpectralProduct(inverse, basis, shape), None)
        lu, pivots, _ = torch.linalg.lu_factor_ex(matrices)
        return FactoredSpectral(basis, shape, None, (lu, pivots))


def solve(settings: Settings, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y for a family, with the factors of A(w) if they are given."""
    family, factors = settings
    if not y.numel():
        return torch.empty_like(y)
    if isinstance(factors, FactoredCausal):  # it sets the precision itself
        return factors.solve(y)
    with full_precision(y):
        if family.solved == "triangle":
            return torch.linalg.solve_triangular(w, y, upper=not family.lower)
        if factors is None:
            factors = factor(family, w, tuple(y.shape[2:]), quiet=True)
        assert factors is not None
        return laid_out(factors.solve(y), y)


def matmul(_: None, a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    if b.ndim > 2 and b.stride(0) == 1:  # PyTorch would multiply sample by sample, strided
        b = b.contiguous()
    with full_precision(a):
        return torch.matmul(a, b)


# --- factored solves ---------------------------------------------------------------------------


TORCH = StridedOps(
    Tensor.as_strided,
    lambda a, b, out: torch.mm(a, b, out=out),
    full_precision,
    lambda d, rows, lower: torch.linalg.solve_triangular(d.mT, rows, upper=lower, left=False),
)


def _ordinal(x: Tensor) -> int | None:
    """Return the device's number; None for fake tensors and AMD's devices, also called "cuda"."""
    there = x.device.type == "cuda" and bare(x) and torch.version.cuda is not None
    return x.device.index if there else None


CUDA = DeviceOps(
    _ordinal,
    Tensor.data_ptr,
    lambda x: int(torch.cuda.current_stream(x.device).cuda_stream),
    lambda x: x.resolve_neg().contiguous(),
)


@dataclass(frozen=True, eq=False)
class FactoredCausal:
    """An autoregressive convolution, factored for a grid, by the quickest way that runs there."""

    family: Causal
    weights: Tensor
    shape: tuple[int, ...]
    state: CompiledSolve | DeviceSolve | PitchedSolver

    @staticmethod
    def of(family: Causal, weights: Tensor, shape: tuple[int, ...]) -> "FactoredCausal":
        """Factor the convolution with these weights, detached."""
        weights = weights.detach()
        c = family.stencil(weights)
        state: Any = None
        if c.taps.is_cpu and type(c.taps) in PLAIN and reason(c.taps.element_size()) is None:
            state = compiled_solve(c.taps.numpy(force=True), c.sweep.on(shape))
        else:
            state = device_solve(c.taps, c.sweep.on(shape), CUDA)
        if state is None:
            with full_precision(weights):
                state = PitchedSolver(c, inverse_at_the_pixel(c), shape, TORCH)
        return FactoredCausal(family, weights, shape, state)

    @property
    def plan(self) -> Plan:
        return self.state.plan

    def transpose(self) -> "FactoredCausal":
        return self.of(self.family.transpose(), self.family.adjoint(self.weights), self.shape)

    def solve(self, y: Tensor) -> Tensor:
        """Return x, shape (B, C, *shape), in the layout of y."""
        if not isinstance(self.state, CompiledSolve):
            return laid_out(self.state(y), y)
        given, y = y, y.resolve_neg().contiguous()
        x = torch.empty_like(y)
        require_images(self.state.images, tuple(y.shape), y.element_size())
        self.state.run(y.data_ptr(), x.data_ptr(), y.shape[0], torch.get_num_threads(), y, x)
        return x if y is given else laid_out(x, given)

    def __reduce__(self) -> Any:
        """Pickle without the state: the layout of weights depends on the processor."""
        return FactoredCausal.of, (self.family, self.weights, self.shape)


@dataclass(frozen=True, eq=False)
class FactoredSpectral:
    """A spectrum with its inverse, or its LU factors (which never raise and never synchronise)."""

    basis: Basis
    shape: tuple[int, ...]
    product: SpectralProduct | None
    lu: tuple[Tensor, Tensor] | None
    adjoint: bool = False

    @property
    def plan(self) -> Plan:
        kept = "LU factors" if self.product is None else "cached inverse"
        return Plan("spectral", per_frequency=kept)

    def transpose(self) -> "FactoredSpectral":
        turned = None if self.product is None else self.product.transposed
        basis = self.basis.transpose()
        return replace(self, basis=basis, product=turned, adjoint=not self.adjoint)

    def solve(self, y: Tensor) -> Tensor:
        if self.product is not None:
            return self.product(y)
        return within_range(self._solve, y)

    def _solve(self, y: Tensor) -> Tensor:
        assert self.lu is not None
        y_hat = self.basis.to_frequencies(y)
        x_hat = torch.linalg.lu_solve(*self.lu, y_hat, adjoint=self.adjoint)
        return self.basis.from_frequencies(x_hat, self.shape).contiguous()


def by_frequencies(product: SpectralProduct, y: Tensor) -> Tensor:
    """See `invconv.kernels.frequencies.spectrum.by_frequencies`."""
    if not (y.is_cpu and bare(y)):
        return spectrum.by_frequencies.agnostic(product, y)
    if not product.prefers_kernel(y.shape[0], y.element_size()):
        return spectrum.by_frequencies.agnostic(product, y).contiguous()
    y = y.resolve_neg().contiguous()
    x = torch.empty_like(y)
    require_images(product.compiled.images, tuple(y.shape), y.element_size())
    product.compiled.run(y.data_ptr(), x.data_ptr(), y.shape[0], torch.get_num_threads(), y, x)
    return x


Factored: TypeAlias = FactoredCausal | FactoredSpectral


# --- correlations ------------------------------------------------------------------------------

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_VJP = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}


def convolve(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own operations."""
    grid = grid_of(offsets, wrap, tuple(x.shape[2:]))
    if grid is None:
        return torch.zeros_like(x)
    if not has_convolution(x, grid):
        with full_precision(x):
            return primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap)
    return convolution(grid, wrap, taps, x)


def convolution(grid: TapGrid, wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own convolution."""
    kernel = _kernel(grid, taps)
    conv = _CONV[x.ndim - 2]
    with full_precision(x):
        if wrap or any(lo != -h for lo, h in zip(grid.low, grid.high, strict=True)):
            return conv(_padded(x, grid, wrap), kernel, dilation=grid.spacing)
        return conv(x, kernel, padding=grid.high, dilation=grid.spacing)


def convolve_vjp(offsets: tuple[Offset, ...], wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient with respect to the taps, by PyTorch's own operations."""
    grid, channels = grid_of(offsets, wrap, tuple(x.shape[2:])), x.shape[1]
    if grid is None:
        return x.new_zeros((len(offsets), channels, channels))
    if not has_convolution(x, grid):
        with full_precision(x):
            return primitives.correlate_kernel_vjp.agnostic(x, y_bar, offsets, wrap=wrap)
    size, gradient = (channels, channels, *grid.size), _CONV_VJP[x.ndim - 2]
    with full_precision(x):
        bar = gradient(_padded(x, grid, wrap), size, y_bar, dilation=grid.spacing)
    flat = bar.flatten(2).permute(2, 0, 1)
    grads = [x.new_zeros((channels, channels))] * len(offsets)
    for t, place in zip(grid.taps, grid.places, strict=True):
        grads[t] = flat[place]
    return torch.stack(grads)


def _compiled(family: TapsFamily, x: Tensor) -> CompiledCorrelation | None:
    """Return the compiled correlation with images like x, if it runs and a tap reaches a pixel."""
    if not (x.is_cpu and type(x) in PLAIN and x.is_contiguous() and x.numel()):
        return None
    itemsize, wrap = x.element_size(), family.wrap
    if reason(itemsize) is not None or not (isinstance(wrap, bool) or wrap == "symmetric"):
        return None
    return compiled_correlation(x.shape[1], tuple(x.shape[2:]), family.offsets, wrap, itemsize)


def has_convolution(x: Tensor, grid: TapGrid) -> bool:
    """Tell whether PyTorch's convolution can be used: at most three axes, and few missing taps."""
    return x.ndim - 2 in _CONV and math.prod(grid.size) <= 4 * len(grid.taps)


def _kernel(grid: TapGrid, taps: Tensor) -> Tensor:
    """Return the taps as PyTorch's kernel (C, C, *size); taps at one place add up."""
    count, channels = math.prod(grid.size), taps.shape[1]
    if grid.places == tuple(range(len(taps))) and len(taps) == count:
        full = taps
    else:
        by_place: dict[int, Tensor] = {}
        for t, place in zip(grid.taps, grid.places, strict=True):
            by_place[place] = by_place[place] + taps[t] if place in by_place else taps[t]
        blank = taps.new_zeros((channels, channels))
        full = torch.stack([by_place.get(place, blank) for place in range(count)])
    return full.permute(1, 2, 0).reshape(channels, channels, *grid.size)


def _padded(x: Tensor, grid: TapGrid, wrap: bool) -> Tensor:
    """Return x from pixel ``low`` to ``high`` beyond the last, with zeros or periodic outside."""
    ends = list(zip(grid.low, grid.high, strict=True))
    if wrap:
        for axis, (low, high) in enumerate(ends, 2):
            x = pad(x, axis, -low, high, wrap=True)
        return x
    return F.pad(x, [side for low, high in reversed(ends) for side in (-low, high)])
