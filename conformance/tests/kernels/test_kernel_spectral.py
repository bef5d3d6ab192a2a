"""Waves, spectra and compiled products beside the definition, and pivots beside LAPACK's."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy.linalg import lu_factor

from invconv.kernels import numpy_primitives
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.program import addresses
from invconv.kernels.cpu.spectral.factors import eliminate
from invconv.kernels.cpu.spectral.product import compiled_product
from invconv.kernels.frequencies import spectrum as spectra
from invconv.kernels.frequencies import waves
from invconv.kernels.frequencies.spectrum import kernel_spectrum, taps_of_spectrum
from invconv.kernels.frequencies.waves import Basis, real_transform
from invconv_conformance.truth.oracle import EXTENDED
from tests.kernels.conftest import between_nans
from tests.kernels.test_kernels import narrower
from tests.selected import CARRY, seeds

Array = np.ndarray[Any, Any]
PI = np.arccos(EXTENDED(-1))
WORDS = "periodic", "symmetric", "odd", "zero", "mirror", "transposed mirror"
pytestmark = pytest.mark.usefixtures("guarded")
SHAPES = (37,), (13, 6), (3, 5, 4), (3, 4, 2, 3)  # three axes of which turn there and back


def multiplied(matrices: Array, basis: Basis, y: Array, bits: int | None, workers: int) -> Array:
    target = None if bits is None else narrower(bits)
    shape = y.shape[2:]
    transform = real_transform(basis.waves, shape, basis.frequencies(shape))
    found = compiled_product(matrices, shape, transform, target)
    return np.asarray(between_nans(found.run, y, workers))


def table(border: str, n: int, k: int = 1, dilation: int = 1) -> tuple[Array, Array, Array]:
    """Return an axis's transform, (frequency, pixel), its inverse, and phases (frequency, tap)."""
    m, p, t = np.arange(n, dtype=EXTENDED)[:, None], np.arange(n), np.arange(k)
    often, wall, ends = 2 - (t == 0), EXTENDED(n - 1 or 1 / 2), 1 - ((p == 0) | (p == n - 1)) / 2
    if border == "periodic":
        waves, offsets = np.exp(-2j * PI * (m * p % n) / n), dilation * (t - (k - 1) // 2)
        return waves, waves.conj().T / n, np.exp(2j * PI * (m * offsets % n) / n)
    if border == "symmetric":
        waves = np.sqrt((2 - (m == 0)) / EXTENDED(n)) * np.cos(PI * m * (p + 1 / 2) / n)
        return waves, waves.T, often * np.cos(PI * m * t / n)
    if border in ("odd", "zero"):
        waves = np.sqrt(2 / EXTENDED(n + 1)) * np.sin(PI * (m + 1) * (p + 1) / (n + 1))
        return waves, waves.T, often * np.cos(PI * (m + 1) * t / (n + 1))
    waves = np.sqrt(2 / wall) * np.cos(PI * m * p / wall) * ends
    waves = waves.T if "transposed" in border else waves
    return waves, waves, often * np.cos(PI * m * t / wall)


def along(x: Array, matrices: Iterable[Array]) -> Array:
    """Return x with a matrix applied along each axis but the first two."""
    for axis, matrix in enumerate(matrices, 2):
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def how_often(basis: Basis, shape: tuple[int, ...]) -> Array:
    """Return how often each frequency counts: 0 if its conjugate is the one that is kept."""
    often = np.ones(shape, int)
    for axis in basis.closed[-1:]:
        k, n = np.indices(shape)[axis], shape[axis]
        often = 2 * (2 * k < n) - (k == 0) + (2 * k == n)
    return often


def kept(x: Array, often: Array, basis: Basis) -> Array:
    """Return matrices (C, C, *frequencies) as a spectrum (F, C, C)."""
    return np.moveaxis(x[..., often > 0], -1, 0).astype("complex" if basis.closed else "float")


@pytest.mark.parametrize("words", ["periodic", "symmetric", "odd symmetric periodic mirror"])
@pytest.mark.parametrize("seed", range(8))
def test_products_of_transforms(seed: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SHARED", 0.0)
    rng = np.random.default_rng(seed)
    bits = (None, None, None, 256, 128)[seed % 5]
    ndim = int(rng.integers(1, 5))
    grid = tuple(map(int, rng.integers(1, {1: 60, 2: 14, 3: 7, 4: 5}[ndim], ndim)))
    shape = SHAPES[seed] if seed < len(SHAPES) else grid
    ndim = len(shape)
    channels, batch = int(rng.choice([1, 2, 3, 9, 25])), int(rng.choice([1, 2, 9, 33]))
    borders = tuple(map(str, rng.choice(words.split(), ndim)))
    known = Basis(borders, (1,) * ndim)
    often, (there, back, _) = how_often(known, shape), zip(*map(table, borders, shape), strict=True)
    kernel = rng.standard_normal((channels, channels, *shape))
    kernel /= np.sqrt(np.prod([shape[axis] for axis in known.closed]))
    matrices = kept(along(kernel, there), often, known)
    y = rng.standard_normal((batch, channels, *shape))
    x_hat = along(y, there)
    x_hat[..., often > 0] = np.einsum("foc,bcf->bof", matrices, x_hat[..., often > 0])
    truth = along(x_hat * often, back).real
    for size in (4, 8):
        images = y.astype(f"f{size}")
        chosen = matrices.astype(f"c{2 * size}" if known.closed else f"f{size}")
        x = multiplied(chosen, known, images, bits, 1)
        eps = np.finfo(images.dtype).eps
        norm = np.linalg.norm(matrices, axis=(1, 2)).max() * np.abs(y).max()
        assert np.abs(x - truth).max() <= 4 * eps * norm
        assert np.array_equal(multiplied(chosen, known, images, bits, 2), x)
        assert np.array_equal(multiplied(chosen, known, images[-1:], bits, 1), x[-1:])


@pytest.mark.parametrize("library", [name for name in CARRY if name != "jax"])
@pytest.mark.parametrize(("at_once", "long"), [(2**16, 32), (0, 32), (0, 0)])
@pytest.mark.parametrize("seed", seeds(6, 18))
def test_waves_and_spectra(
    seed: int, at_once: int, long: int, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the table in `waves`: by products with all phases, with those of an axis, and by FFTs."""
    monkeypatch.setattr(spectra, "AT_ONCE", at_once)
    monkeypatch.setattr(spectra, "LONG", long)
    monkeypatch.setattr(waves, "BY_MATRIX", long or 1)
    rng, carry = np.random.default_rng(seed), CARRY[library]
    borders = tuple(WORDS[(seed + axis) % len(WORDS)] for axis in range(1 + seed // len(WORDS)))
    tops = (8 + 4 * (seed < len(WORDS)), 8, 4)
    grid, size, steps = (tuple(map(int, rng.integers(1, top, len(borders)))) for top in tops)
    basis, often = Basis(borders, steps), how_often(Basis(borders, steps), grid)
    there, _, phases = zip(*map(table, borders, grid, size, steps), strict=True)
    np.testing.assert_array_equal(basis.multiplicity(grid), often[often > 0])
    x, kernel = rng.standard_normal((2, 3, *grid)), rng.standard_normal((2, 2, *size))
    bars = along(rng.standard_normal((2, 2, *grid)), there) * (1 + 1j if basis.closed else 1)
    x_hat = basis.to_frequencies(carry(x))
    spectrum = kernel_spectrum(carry(kernel), basis, grid)
    taps = taps_of_spectrum(carry(kept(bars, often, basis)), basis, size, carry(kernel), grid)
    for found, wanted in (
        (x_hat, along(x, there)[..., often > 0].T),
        (basis.from_frequencies(x_hat, grid), x),
        (spectrum, kept(along(kernel, phases), often, basis)),
        (taps, along(bars * often, (phase.T for phase in phases)).real),
    ):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-13 * scale)
    assert basis.to_frequencies(carry(x[:0])).shape == ((often > 0).sum(), 3, 0)


DTYPES = "float32", "float64", "complex64", "complex128"


def pivots(matrices: Array, bits: int | None = None) -> Array:
    target = None if bits is None else narrower(bits)
    given = np.pad(matrices, [(1, 1), (0, 0), (0, 0)])
    parts = 2 if matrices.dtype.kind == "c" else 1
    count, channels = matrices.shape[:2]
    eliminate(addresses(given[1:])[0], count, channels, parts, target)
    assert not given[[0, -1]].any()
    return np.asarray(np.abs(np.diagonal(given[1:-1], axis1=1, axis2=2)))


def drawn(rng: np.random.Generator, count: int, channels: int, dtype: str) -> Array:
    parts = rng.standard_normal((2, count, channels, channels))
    return np.asarray(parts[0] + 1j * parts[1] if dtype[0] == "c" else parts[0], dtype)


@pytest.mark.parametrize("dtype", DTYPES[1::2])
@pytest.mark.parametrize("seed", range(8))
def test_pivots_are_those_of_lapack(dtype: str, seed: int) -> None:
    """Of any number of matrices, in vectors of any length, of numbers of any size."""
    rng = np.random.default_rng(seed)
    count, channels = int(rng.integers(1, 40)), int(rng.integers(1, 20))
    limits = np.finfo("f8")
    scale = [1.0, float(limits.max) / 64, float(limits.tiny) * 64][seed % 3]
    matrices = drawn(rng, count, channels, dtype)
    found = pivots(matrices * scale, [None, 128, 256][seed % 3]) / scale
    for matrix, mine in zip(matrices, found, strict=True):
        upper = np.triu(lu_factor(matrix)[0])
        error = np.abs(mine - np.abs(np.diagonal(upper))).max()
        assert error <= 300 * channels * limits.eps * np.abs(upper).max()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpys_log_determinants(dtype: str) -> None:
    """Of matrices with several axes before, singular ones, none, and strided memory."""
    matrices = drawn(np.random.default_rng(0), 24, 5, dtype)
    matrices[3], matrices[4, :, 2], matrices[6, 1, 2] = 0, 0, np.nan
    known = matrices.copy()
    found = numpy_primitives.log_abs_det(matrices.reshape(2, 12, 5, 5))
    np.testing.assert_array_equal(matrices, known)
    assert found.shape == (2, 12)
    assert found.dtype == matrices.real.dtype
    logs = found.ravel()
    assert (logs[3:5] == -np.inf).all()
    assert np.isnan(logs[6])
    regular = [i for i in range(24) if i not in (3, 4, 6)]
    wide = matrices[regular].astype(np.result_type(dtype, "f8"))
    expected = np.linalg.slogdet(wide)[1]  # double inside, whatever the dtype
    rtol = max(4 * float(np.finfo(found.dtype).eps), 1e-13)
    np.testing.assert_allclose(logs[regular], expected, rtol=rtol)
    strided = np.repeat(matrices, 2, axis=0)[::2]
    np.testing.assert_array_equal(numpy_primitives.log_abs_det(strided), logs)
    assert numpy_primitives.log_abs_det(matrices[:0]).shape == (0,)
