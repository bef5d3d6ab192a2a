"""The compiled kernel and the plain wavefront by themselves, against the dense oracle."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from llvmlite import binding

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.cpu import assembly, compiled, costs, machine, recursive, sums, xla
from invconv.kernels.cpu.compiled import CompiledSolve, compiled_solve, require_images
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate.correlation import write_images_correlation
from invconv.kernels.cpu.loop import write_solve
from invconv.kernels.cpu.program import addresses
from invconv.kernels.cpu.weights import write_weights
from invconv.kernels.order import inverse_limit
from invconv.kernels.pitched import NUMPY, PitchedSolver
from invconv.kernels.wavefront import WavefrontSolver, inverse_at_the_pixel
from invconv_conformance.cases.table import skewed
from invconv_conformance.cuda import solves
from invconv_conformance.cuda.solves import backward_error
from invconv_conformance.truth.oracle import affine
from invconv_torch.native.kernels import TORCH
from tests.call_frames import Frames
from tests.kernels.conftest import between_nans
from tests.programs import python
from tests.selected import CARRY, seeds

Floats = np.ndarray[Any, Any]
AARCH64 = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "", 128, registers=32, fma=True)


def narrower(bits: int, fma: bool = True) -> Target:
    """Return this processor with narrower vectors."""
    return dataclasses.replace(host(), bits=bits, registers=16, fma=fma and host().fma)


pytestmark = pytest.mark.usefixtures("guarded")


def factored(
    conv: ic.AutoregressiveConv, grid: tuple[int, ...], dtype: str, target: Target | None = None
) -> CompiledSolve:
    c = conv._causal()
    return compiled_solve(c.taps.astype(dtype), c.sweep.on(grid), target)


def solved(state: CompiledSolve, y: Floats, workers: int = 1) -> Floats:
    return np.asarray(between_nans(state.run, y, workers))


@pytest.fixture(params=["images", "rows", "channels", "recursion"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Force what is in the lanes, where it can be; small images, too, have bands and threads."""
    quickest = assembly.best_way

    def chosen(g: Any, batch: int, workers: int) -> Any:
        possible = request.param in assembly.of_ways(g, batch, workers)
        return request.param if possible else quickest(g, batch, workers)

    monkeypatch.setattr(assembly, "best_way", chosen)
    monkeypatch.setattr(costs, "SHARED", 0.0)
    monkeypatch.setattr(costs, "BAND", 2**13)
    for cache in (caches := (compiled._runs, assembly.program)):
        cache.cache_clear()
    yield request.param
    for cache in caches:
        cache.cache_clear()


def random_case(
    rng: np.random.Generator, largest: int = 4, channels: tuple[int, ...] = (1, 2, 3, 5, 8, 9, 13)
) -> tuple[ic.AutoregressiveConv, tuple[int, ...]]:
    """Return a convolution, and a grid that may be thinner than its reach."""
    ndim = int(rng.integers(1, largest + 1))
    sizes = int(rng.choice(channels)), ndim
    conv = solves.drawn(rng, *sizes, kernel_size=tuple(map(int, rng.integers(1, 4, ndim))))
    most = {1: 50, 2: 21, 3: 6, 4: 4}[ndim]
    *grid, last = map(int, rng.integers(1, most, ndim))
    few = 2600 // (conv.channels * math.prod(grid))  # so that the dense matrix is small
    return conv, (*grid, max(1, min(last, few)))


@pytest.mark.parametrize("seed", seeds(15, 30))
def test_solves_what_the_dense_matrix_says(seed: int, lanes: str) -> None:
    rng = np.random.default_rng(seed)
    conv, grid = random_case(rng)
    dtype = str(rng.choice(["float32", "float64"]))
    y = rng.standard_normal((int(rng.choice([1, 3, 17, 33])), conv.channels, *grid)).astype(dtype)
    state = factored(conv, grid, dtype)
    x = solved(state, y)
    assert backward_error(conv, x, y) < 4 * conv.channels
    assert np.array_equal(solved(state, y, workers=2), x)
    assert np.array_equal(solved(state, y[-1:]), x[-1:])


@pytest.mark.parametrize("seed", seeds(6, 12))
def test_many_channels_have_the_same_bits_in_any_lanes(seed: int, monkeypatch: Any) -> None:
    """Every second pixel's matrix is one whose inverse would cost digits: it is substituted."""
    rng = np.random.default_rng(seed)
    conv, grid = random_case(rng, largest=2, channels=(1, 6, 17, 25, 48, 70))
    grid = tuple(map(min, grid, (18, 3)))  # more rows than a strip has
    conv, dtype = skewed(conv, seed % 2), str(rng.choice(["float32", "float64"]))
    y = rng.standard_normal((11, conv.channels, *grid)).astype(dtype)
    y[rng.random(y.shape) < 0.1] = -0.0
    solutions = {}
    for way in assembly.of_ways(factored(conv, grid, dtype).geometry, len(y), 1):
        monkeypatch.setattr(assembly, "best_way", lambda *_, way=way: way)
        compiled._runs.cache_clear()
        solutions[way] = solved(factored(conv, grid, dtype), y)
    compiled._runs.cache_clear()
    rows = ["rows"] * (sum(n > 1 for n in grid) > 1)
    assert {"images", "recursion" if conv.channels == 1 else "channels", *rows} == set(solutions)
    assert len({x.tobytes() for x in solutions.values()}) == 1
    x = solutions["images"]
    assert backward_error(conv, x, y) < 4 * conv.channels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", [1, -1])
def test_rows_that_lag_by_four_pixels_are_copied_at_every_width(
    direction: int, dtype: str, monkeypatch: Any
) -> None:
    rng = np.random.default_rng(0)
    kernel = 0.1 * rng.standard_normal((1, 1, 2, 7))
    kernel[..., 0, 3] = 1.0
    conv = ic.AutoregressiveConv(kernel, mask="raster", direction=direction)
    for width in range(8, 100):
        y, solutions = rng.standard_normal((1, 1, 17, width)).astype(dtype), []
        for way in ("images", "rows"):
            monkeypatch.setattr(assembly, "best_way", lambda *_, way=way: way)
            compiled._runs.cache_clear()
            solutions.append(solved(factored(conv, (17, width), dtype), y))
        assert np.array_equal(solutions[0], solutions[1])
    compiled._runs.cache_clear()


@pytest.mark.parametrize("channels", [4, 128])
def test_a_folded_inverse_is_as_accurate_as_substitution(channels: int) -> None:
    """At the limit of D's condition, in float32, beside LAPACK's substitution."""
    rng = np.random.default_rng(channels)
    noise = np.tril(rng.standard_normal((channels, channels)))
    kernels = (np.eye(channels) + size * noise for size in np.geomspace(1e-3, 1, 400))
    limit = inverse_limit(channels)
    matrix = [k for k in kernels if np.linalg.cond(k, 1) <= 0.99 * limit][-1].astype("f4")
    y = rng.standard_normal((channels, 64)).astype("f4")
    prepared = ic.AutoregressiveConv(matrix[:, :, None]).prepare((64,))
    assert prepared.plan.at_the_pixel == "cached inverse"
    exact = np.linalg.solve(matrix.astype("f8"), y.astype("f8"))
    substituted = scipy.linalg.solve_triangular(matrix, y, lower=True)
    folded = prepared.inverse(y)
    assert np.linalg.norm(folded - exact) <= 1.2 * np.linalg.norm(substituted - exact)


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("fma", [True, False])
@pytest.mark.parametrize("seed", seeds(1, 3))
def test_narrower_vectors(seed: int, bits: int, fma: bool, lanes: str) -> None:
    """SSE and AVX2, which this processor has too; without FMA a product is rounded by itself.

    In float64 the matrix at the pixel is one that is substituted.
    """
    rng = np.random.default_rng(seed)
    plain, grid = random_case(rng)
    for dtype, conv in (("float32", plain), ("float64", skewed(plain, 3))):
        y = rng.standard_normal((5, conv.channels, *grid)).astype(dtype)
        x = solved(factored(conv, grid, dtype, narrower(bits, fma)), y)
        assert backward_error(conv, x, y) < 4 * conv.channels


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_filters_with_narrower_vectors(dtype: str, bits: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(recursive, "host", lambda: narrower(bits))
    recursive._parts.cache_clear()
    x = np.random.default_rng(0).standard_normal((11, 37)).astype(dtype)
    b, a = np.array([1, -0.5, 0.2], dtype), np.array([1, 0.3, -0.4], dtype)
    error = np.abs(ic.lfilter(b, a, x) - scipy.signal.lfilter(b, a, x))
    recursive._parts.cache_clear()
    assert error.max() <= 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("itemsize", [4, 8])
def test_code_for_aarch64_multiplies_and_adds_in_vectors(itemsize: int) -> None:
    """It is compiled and looked at; it has not run."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    modules: dict[str, Callable[[Writer], None]] = {
        "weights": write_weights,
        "images": lambda w: write_solve(w, "images"),
        "rows": lambda w: write_solve(w, "rows"),
        "channels": lambda w: write_solve(w, "channels"),
        "sums": lambda w: sums.write_sums(w, 12, single=True),
        "sums of channels": lambda w: sums.write_channel_sums(w, w.lanes, 3, 0),
        "correlated images": write_images_correlation,
    }
    for name, write in modules.items():
        writer = Writer(AARCH64, itemsize)
        write(writer)
        module = binding.parse_assembly(str(writer.module))
        code = machine.optimised(module, AARCH64, thorough=True).emit_assembly(module)
        assert ("fmla\tv" in code) == (name in ("weights", "sums", "sums of channels"))
        transposes = "zip1\tv" in code or "trn1\tv" in code
        assert transposes == (name in ("images", "rows", "channels", "correlated images"))
        assert (".4s" if itemsize == 4 else ".2d") in code
        assert "fmaf" not in code, "no call of the C library"


def test_a_call_in_compiled_code_has_each_argument_by_its_name() -> None:
    writer, callee = Writer(host(), 8), ("x y", "count width", "y width")
    with writer.function("callee", *callee, inside=True) as a:
        writer.clear(a["x"], a["count"])
    with writer.function("caller", "x", inside=False) as a:
        given = {"x": a["x"], "count": 3}
        record = {"step": writer.integer(1)}  # other fields of a record do no harm
        writer.call_inside("callee", record, **given)
        with pytest.raises(TypeError, match=r"x, y, count, width, got \['cuont'\]"):
            writer.call_inside("callee", **given, cuont=1)
        with pytest.raises(TypeError, match=r"expected arguments \['count'\] too, got y, width, x"):
            writer.call_outside(a["x"], callee, x=a["x"])


@pytest.mark.parametrize("batch", [1, 37])
@pytest.mark.parametrize("channels", [1, 3, 24])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_xlas_memory_is_enough(dtype: str, channels: int, batch: int) -> None:
    """Wherever it starts, with matrices or weights given; what lies around it stays as it is."""
    rng, like = np.random.default_rng(0), np.zeros((), dtype)
    conv = ic.AutoregressiveConv.init(channels, ndim=1 + (channels > 1), rng=rng, like=like)
    y = rng.standard_normal((batch, channels, *(9, 5)[: conv.ndim])).astype(dtype)
    state, frames = factored(conv, y.shape[2:], dtype), Frames()
    called = xla.call(channels, conv._causal().sweep.on(y.shape[2:]), y.itemsize, batch)
    for aside, given in itertools.product((0, 8, 56), (state.matrices, *state.layouts())):
        if given.size == called.plan.weights or given.ndim > 1:
            memory = np.full(called.memory + 256, 0xFF, np.uint8)
            first = 64 - addresses(memory)[0] % 64 + aside
            x, room = np.empty_like(y), memory[first : first + called.memory]
            numbers = called.plan.numbers, called.room
            assert frames.call(called.code, [given, y], [x, room], numbers) is None
            assert np.array_equal(x, solved(state, y))
            room[:] = 0xFF
            assert (memory == 0xFF).all()


def test_images_of_another_size_are_not_read() -> None:
    """A call that let such images through would read memory that is not theirs."""
    state = factored(ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0)), (4, 5), "float32")
    require_images(state.images, (7, 3, 4, 5), 4)
    for shape, itemsize in (((7, 2, 4, 5), 4), ((7, 3, 4, 6), 4), ((7, 3, 4, 5), 8)):
        with pytest.raises(ValueError, match="expected 3 channels of 20 pixels of 4 bytes"):
            require_images(state.images, shape, itemsize)


def test_memory_stays_bounded_over_many_batch_sizes() -> None:
    conv = ic.AutoregressiveConv.init(3, 2, rng=np.random.default_rng(0))
    state = factored(conv, (8, 8), "float32")
    for batch in range(1, 401):
        solved(state, np.zeros((batch, 3, 8, 8), "float32"))
    assert compiled._runs.cache_info().currsize <= 256
    assert assembly.program.cache_info().currsize <= 64
    kept = compiled.BUFFERS.kept
    assert kept is not None
    assert kept[1].nbytes <= costs.KEPT


def test_a_filter_outlives_the_cache_of_compiled_functions() -> None:
    code = """
        import gc, invconv, numpy
        from invconv.kernels.cpu import machine
        run = lambda: invconv.lfilter([1.0], [1.0, -0.5], numpy.ones((9, 32)))
        first = run()
        machine.compiled.cache_clear()  # as many other functions do
        gc.collect()
        assert (run() == first).all()
    """
    python("-c", textwrap.dedent(code))


OPS: dict[str, Any] = {"numpy": NUMPY, "torch": TORCH, "array_api_strict": None}


@pytest.mark.parametrize("library", OPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", seeds(5, 15))  # five are rasters of four axes
def test_any_setting_solves_the_dense_system(seed: int, dtype: str, library: str) -> None:
    """With D^-1 folded in and without; a NaN stays in its image, and y is as it was."""
    rng, ops, array = np.random.default_rng(seed), OPS[library], CARRY[library]
    conv, grid = random_case(rng)
    # the arrays in float64 hold what those of the dtype do
    conv = conv.replace(kernel=conv.kernel.astype(dtype).astype("float64"))
    causal = conv.asarrays(array(np.zeros((), dtype)))._causal()
    inverse = None if seed % 5 < 2 else inverse_at_the_pixel(causal)
    solve: Any = WavefrontSolver(causal.within(grid), inverse, grid)
    solve = PitchedSolver(causal, inverse, grid, ops) if ops else solve
    y = rng.standard_normal((3, conv.channels, *grid)).astype(dtype)
    matrix, _ = affine(conv, grid)
    y[1] = (matrix @ y[1].ravel()).reshape(y[1].shape)
    before = y.copy()
    assert solve.plan.levels
    x = to_numpy(solve(array(y)))
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    assert backward_error(conv, x, y) <= 5 * len(matrix)
    np.testing.assert_array_equal(y, before)
    y[1, 0] = np.nan
    np.testing.assert_array_equal(to_numpy(solve(array(y)))[::2], x[::2])
