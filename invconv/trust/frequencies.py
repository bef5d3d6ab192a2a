"""The error of a spectral inverse, measured in the frequency domain, without sums over taps.

    y_hat(f) = K_hat(f) x_hat(f)

The inverse has two errors. Rounding in the transforms spreads over all frequencies. Rounding of
K_hat(f) and of its inverse affects frequency f alone. So two measurements are made:

    given x     |x' - x| / |x| in the largest entries, for x' = K^-1 y as it runs, with an image
                x >= 0, and y = K x + b computed in the frequency domain
    random y    |x_hat' - x_hat| / |x_hat| in the 2-norm, for y of N(0, 1) numbers. Its square is
                the mean of |x_hat'(f) - x_hat(f)|^2 / |x_hat'(f)|^2 over frequencies drawn with
                probabilities |x_hat'(f)|^2 / |x_hat'|^2: a few frequencies, with K_hat(f) in
                longdouble, are enough
"""

import math
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape, size
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.products import SpectralProduct, at_frequencies, by_frequencies
from invconv.kernels.frequencies.spectrum import (
    SpectralSolver,
    kernel_spectrum,
    solved,
    spectrum_at,
)
from invconv.kernels.primitives import per_channel
from invconv.trust.measured import Floats, relative_error

_PLACES, _SUMMANDS = 256, 2**18  # at most: frequencies drawn, and summands of their K_hat(f)
_DRAWN = 2**16  # random y_hat(f) at most


def error_by_frequencies(
    kernel: Floats, basis: Basis, shape: Shape, solver: Any, bias: Any, *, by_taps: bool
) -> float:
    """Return the larger of the two errors of a factored convolution of NumPy arrays.

    ``by_taps`` is True if the operator's own K x is a sum over taps. Its rounding error has about
    half the square of the transforms' error here; the solve has the other half of the error.
    """
    given = _error_of_given_x(kernel, basis, shape, solver, bias)
    given *= math.sqrt(0.75) if by_taps else 1.0
    return max(given, _error_of_random_y(kernel, basis, shape, solver))


def _error_of_given_x(kernel: Floats, basis: Basis, shape: Shape, solver: Any, bias: Any) -> float:
    x = np.random.default_rng().random((1, len(kernel), *shape), kernel.dtype)
    known = isinstance(solver, SpectralSolver)  # the same numbers, once more
    spectrum = solver.spectrum if known else kernel_spectrum(kernel, basis, shape)
    y = by_frequencies.agnostic(SpectralProduct(spectrum, basis, shape), x)
    if bias is not None:
        shift = per_channel(bias, y)
        y = y + shift - shift
    return relative_error(solver(y), x)


def _error_of_random_y(kernel: Floats, basis: Basis, shape: Shape, solver: Any) -> float:
    rng, count = np.random.default_rng(), size(basis.frequencies(shape))
    kind = np.dtype(basis.dtype(kernel))
    numbers = rng.standard_normal(
        min(count, _DRAWN) * len(kernel) * kind.itemsize // kernel.itemsize, kernel.dtype
    )
    y_hat = np.resize(numbers.view(kind), (count, len(kernel), 1))  # repeated if there are more
    x_hat = _solved(solver, slice(None), y_hat)
    share = np.cumsum(np.square(np.abs(x_hat), dtype=np.float64).sum(axis=(1, 2)))
    if not np.isfinite(share[-1]):
        return math.inf
    drawn = rng.uniform(size=max(1, min(_PLACES, _SUMMANDS // kernel.size))) * share[-1]
    places = np.minimum(np.searchsorted(share, drawn), count - 1)
    exact = spectrum_at(kernel, basis, shape, places)
    off = _solved(solver, places, (y_hat[places] - exact @ x_hat[places]).astype(y_hat.dtype))
    errors = (np.abs(off) ** 2).sum(axis=(1, 2)) / (np.abs(x_hat[places]) ** 2).sum(axis=(1, 2))
    error = math.sqrt(errors.mean())
    return error if math.isfinite(error) else math.inf


def _solved(solver: Any, places: Any, y_hat: Floats) -> Floats:
    """Return x_hat(f) for y_hat (F, C, 1) at some frequencies, computed as the solver does."""
    product = solver.product if isinstance(solver, SpectralSolver) else solver
    if product is None:
        return np.asarray(solved(solver.spectrum[places], y_hat))
    return np.asarray(at_frequencies(product.matrices[places], y_hat))
