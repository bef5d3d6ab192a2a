"""Products into views of a buffer: what is put there, and that nothing else is touched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

import invconv as ic
from invconv import blas, primitives
from invconv.numpy_primitives import STRIDED
from invconv.strided import general_product
from invconv_torch import in_memory

Floats = np.ndarray[Any, Any]
PRODUCTS: dict[str, Callable[..., Any]] = {
    "BLAS": blas.product,
    "SciPy's BLAS": blas.product,
    "NumPy": general_product(np),
    "in memory": in_memory.IN_MEMORY.product,
    "in threads": in_memory.IN_THREADS.product,
}
SHAPES = [(1, 3, 5), (7, 1, 4), (40, 6, 3), (300, 24, 12), (300, 24, 40)]


def rows(buffer: Floats, start: int, pitch: int, shape: tuple[int, int]) -> Floats:
    """Return rows that lie so far apart in a buffer."""
    size = buffer.itemsize
    return as_strided(buffer[start:], shape, (pitch * size, size))


@pytest.fixture
def without_numpys_blas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    blas._gemm.cache_clear()
    monkeypatch.setattr(blas, "_of_numpy", lambda letter, dtype: None)
    yield
    blas._gemm.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("plus", ["nothing", "itself", "scratch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_goes_where_it_should(
    name: str,
    shape: tuple[int, int, int],
    plus: str,
    dtype: str,
    request: pytest.FixtureRequest,
) -> None:
    if name == "SciPy's BLAS":
        request.getfixturevalue("without_numpys_blas")
    (m, k, n), rng = shape, np.random.default_rng(0)
    pitch = k + n + 2
    buffer = rng.standard_normal(m * pitch).astype(dtype)
    a, out = rows(buffer, 0, pitch, (m, k)), rows(buffer, k + 1, pitch, (m, n))
    b, scratch = rng.standard_normal((k, n)).astype(dtype), rng.standard_normal((m, n))
    added = {"nothing": None, "itself": out, "scratch": scratch.astype(dtype)}[plus]
    wanted = buffer.astype(np.longdouble)
    total = a.astype(np.longdouble) @ b + (0 if added is None else added)
    rows(wanted, k + 1, pitch, (m, n))[...] = total
    calls = PRODUCTS[name](a, b, out, added)
    for call in calls:
        call()
    bound = 4 * (k + 1) * np.finfo(dtype).eps
    assert np.abs(buffer - wanted).max() <= bound * np.abs(wanted).max()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (2, 40, 7, 90), (1, 80, 90, 50)], ids=str)
def test_pixels_are_multiplied_where_they_should_be(
    shape: tuple[int, int, int, int], threads: int, dtype: str
) -> None:
    batch, channels, height, width = shape
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, channels, height, 2 * width)).astype(dtype)[..., ::2]
    matrix = rng.standard_normal((channels, channels)).astype(dtype)
    buffer = np.zeros((batch, height + 1, width + 2, channels), dtype)
    torch.set_num_threads(threads)
    in_memory.IN_MEMORY.matmul(images.transpose(0, 2, 3, 1), matrix, buffer[:, 1:, 1:-1])
    wanted = np.zeros_like(buffer, dtype=np.longdouble)
    wanted[:, 1:, 1:-1] = np.einsum("bchw,cd->bhwd", images.astype(np.longdouble), matrix)
    bound = 4 * channels * np.finfo(dtype).eps
    assert np.abs(buffer - wanted).max() <= bound * np.abs(wanted).max()


def test_calls_are_for_the_values_at_the_time() -> None:
    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.zeros((2, 4))
    (call,) = blas.product(a, b, out)
    a *= 2
    b[1:] = 0
    call()
    np.testing.assert_array_equal(out, np.full((2, 4), 2.0))


@pytest.mark.usefixtures("without_numpys_blas")
def test_scipys_gemm_is_asked_for_small_products_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "SMALL", 2**8)
    rng = np.random.default_rng(0)
    a, b, out = rng.standard_normal((50, 3)), rng.standard_normal((3, 4)), np.empty((50, 4))
    calls = blas.product(a, b, out)
    assert len(calls) == 3  # of 21 rows, 252 multiplications, at most
    for call in calls:
        call()
    np.testing.assert_allclose(out, a @ b)
    b, out = rng.standard_normal((3, 400)), np.empty((50, 400))
    (call,) = blas.product(a, b, out)
    assert not hasattr(call, "reads")  # matmul's
    call()
    np.testing.assert_allclose(out, a @ b)


def test_a_function_that_does_something_else_is_not_gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = np.dtype("float64")
    if blas._of_numpy("d", dtype) is None:
        pytest.skip("NumPy's BLAS is not found by its name here")
    assert not blas._multiplies(blas._of_numpy("s", np.dtype("float32")), dtype)
    assert not blas._multiplies(lambda *arguments: None, dtype)
    monkeypatch.setattr(blas, "_NAMES", ("no_such_{}gemm",))
    assert blas._of_numpy("d", dtype) is None
    monkeypatch.setattr(blas, "_LINKED", "no_such_module")
    assert blas._of_numpy("d", dtype) is None


@pytest.mark.usefixtures("without_numpys_blas")
def test_what_blas_does_not_take_is_multiplied_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.arange(12.0)
    overlapping = rows(values, 0, 2, (4, 5))  # rows that share numbers
    b, out = np.random.default_rng(0).standard_normal((5, 3)), np.empty((4, 3))
    for call in blas.product(overlapping, b, out):
        call()
    np.testing.assert_allclose(out, overlapping.copy() @ b)
    blas._gemm.cache_clear()
    monkeypatch.setattr(blas, "_TAKES", "something else than {0}")
    try:
        assert blas._gemm(out.dtype) is None
        again = np.empty((4, 3))
        for call in blas.product(overlapping.copy(), b, again):
            call()
    finally:
        blas._gemm.cache_clear()
    np.testing.assert_allclose(again, out)


def test_blas_has_numbers_of_two_types_in_the_machines_order() -> None:
    assert blas._gemm(np.dtype("float32")) is not None
    assert blas._gemm(np.dtype("float64")) is not None
    assert blas._gemm(np.dtype("float64").newbyteorder()) is None
    assert blas._gemm(np.dtype(np.longdouble)) is None
    a, b = np.ones((2, 3), np.longdouble), np.ones((3, 4), np.longdouble)
    out = np.zeros((2, 4), np.longdouble)
    for call in blas.product(a, b, out):
        call()
    np.testing.assert_array_equal(out, 3)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("small", [2**8, 1])
def test_products_in_parts_and_in_torchs_threads(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "SMALL", small)
    monkeypatch.setattr(in_memory, "_ROW", small)
    rng = np.random.default_rng(0)
    a, b, plus = (rng.standard_normal(s) for s in ((50, 4), (4, 3), (50, 3)))
    for added in (None, plus.copy()):
        out = np.empty((50, 3))
        for call in in_memory.IN_MEMORY.product(a, b, out, added):
            call()
        np.testing.assert_allclose(out, a @ b + (0 if added is None else plus), rtol=1e-12)
    pixels = rng.standard_normal((2, 5, 4, 6)).transpose(0, 1, 3, 2)
    found = np.empty((2, 5, 6, 3))
    in_memory.IN_MEMORY.matmul(pixels, b, found)
    np.testing.assert_allclose(found, pixels @ b, rtol=1e-12)


@pytest.mark.parametrize("solved", ["a row", "on the way in"])
def test_numpys_products_do_not_warn_of_what_blas_reads_beside_them(solved: str) -> None:
    """NumPy warns if a flag is up, whoever raised it; here it is inf - inf, a warning here too."""
    rng = np.random.default_rng(0)
    a, b = np.array([[np.inf, -np.inf]], np.float32), np.ones((2, 1), np.float32)
    with pytest.raises(RuntimeWarning, match="invalid value encountered in matmul"):
        np.matmul(a, b)
    assert np.isnan(primitives.matmul(a, b))
    conv = ic.AutoregressiveConv.init(2, rng=rng, like=a)
    y = np.broadcast_to(a[0, :, None, None], (3, 2, 8, 8)).copy()
    assert np.isnan(conv.forward(y)).any()
    for _, gradient in conv.forward_vjp(y, y, np.zeros(3, np.float32))[0].items():
        assert not np.isfinite(gradient).all()
    tile = (1, 1) if solved == "a row" else (2, 2)
    assert np.isnan(conv.prepare((8, 8), tile=tile, check=False).inverse(y)).any()


@pytest.mark.usefixtures("two_threads")
def test_large_products_are_torchs_if_its_threads_are_many_and_do_not_share_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_memory, "TEAM", None)
    rng, kept = np.random.default_rng(0), in_memory.IN_THREADS._kept
    torchs = []
    for channels, batch in ((12, 100), (48, 10), (12, 10)):
        conv = ic.AutoregressiveConv.init(channels, rng=rng)
        y = rng.standard_normal((batch, channels, 32, 32))
        prepared, x = conv.asarrays(torch.as_tensor(y)).prepare((32, 32)), conv.inverse(y)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            kept._kept.clear()
            found = prepared.inverse(torch.as_tensor(y)).numpy()
            np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)
            torchs.append((channels, batch, threads, len(kept._kept) > 0))
    assert [way for way in torchs if way[-1]] == [(12, 100, 2, True), (48, 10, 2, True)]


@pytest.mark.usefixtures("two_threads")
def test_autocast_does_not_reach_the_products_that_are_torchs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_memory, "TEAM", None)
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(48, 2, rng=rng, like=torch.empty(0))
    y = torch.as_tensor(rng.standard_normal((64, 48, 16, 16)), dtype=torch.float32)
    prepared = conv.prepare((16, 16), check=False)
    x = prepared.inverse(y)
    used = [w for w in in_memory.IN_THREADS._kept._kept.values() if w.parts[0].given.shape[0] == 64]
    calls = [call for work in used for call in work.calls]
    assert any(isinstance(c, functools.partial) and c.func is torch.addmm for c in calls)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prepared.inverse(y), x)
    wanted = conv.asarrays(np.zeros(())).inverse(y.numpy().astype(float))
    np.testing.assert_allclose(x.numpy(), wanted, rtol=0, atol=1e-4)


def test_autocast_does_not_reach_a_product_that_is_torchs_by_itself() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype("float32") for s in ((40, 9000), (9000, 2)))
    out = np.empty((40, 2), np.float32)
    calls = in_memory.IN_MEMORY.product(a, b, out, None)
    assert not any(hasattr(call, "reads") for call in calls)  # as those of BLAS have
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for call in calls:
            call()
    np.testing.assert_allclose(out, a.astype(float) @ b.astype(float), rtol=0, atol=2e-3)


def test_numpy_and_torch_do_not_share_what_a_thread_keeps() -> None:
    assert in_memory.IN_MEMORY._kept is not STRIDED._kept
    assert in_memory.IN_THREADS._kept is not in_memory.IN_MEMORY._kept
