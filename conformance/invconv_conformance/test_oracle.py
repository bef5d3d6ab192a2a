"""Every operator, on every library, device and dtype, against its dense matrix."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from invconv.arrays import dtype_name, library_name, to_numpy
from invconv.registry import PRIMITIVES, agnostic
from invconv_conformance import oracle
from invconv_conformance.case import Case
from invconv_conformance.cases import CASES
from invconv_conformance.libraries import LIBRARIES, Target, targets

# relative error per unit of condition number; for 16 bits, that of rounding the operands
BOUNDS = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-2, "bfloat16": 2e-1}

Floats = np.ndarray[Any, Any]

FULL = [(t, d) for t in targets() for d in t.library.dtypes if d in ("float64", "float32")]
HALF = [(t, d) for t in targets() for d in t.library.dtypes if d in ("float16", "bfloat16")]
NATIVE = [(t, d) for t, d in FULL if any(p.native(t.library.name) for p in PRIMITIVES.values())]


def on(combinations: list[tuple[Target, str]]) -> pytest.MarkDecorator:
    params = [pytest.param(t, d, id=f"{t}-{d}") for t, d in combinations]
    return pytest.mark.parametrize(("target", "dtype"), params)


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_library_is_there(library: Any) -> None:
    reason = library.absent()
    if reason:
        pytest.skip(reason)
    assert library.devices()


@functools.cache
def truth(case: Case) -> tuple[Floats, Floats, float]:
    matrix, shift = oracle.affine(case.conv(), case.spatial_shape)
    return matrix, shift, float(np.linalg.cond(matrix))


def assert_close(got: Any, expected: Floats, bound: float, scale: float | None = None) -> None:
    values = to_numpy(got).astype(np.float64)
    assert values.shape == expected.shape
    scale = float(np.linalg.norm(expected)) if scale is None else scale
    assert float(np.linalg.norm(values - expected)) <= bound * max(scale, np.finfo(float).tiny)


def apply(matrix: Floats, x: Floats, case: Case, shift: Floats | float = 0.0) -> Floats:
    """Apply a dense matrix to (*batch, C, *spatial)."""
    rows: Floats = x.reshape(-1, matrix.shape[0]) @ matrix.T + shift
    return rows.reshape(x.shape)


@every_case
@on(FULL + HALF)
def test_values(case: Case, target: Target, dtype: str) -> None:
    matrix, shift, condition = truth(case)
    bound = BOUNDS[dtype] * max(1.0, condition)
    like = target.asarray(np.zeros(()), dtype)
    conv = case.conv().asarrays(like)
    (x,) = case.images(1)
    y = apply(matrix, x, case, shift)
    shape = case.spatial_shape
    half = dtype in ("float16", "bfloat16")

    got, log_det = conv.forward_and_log_det(target.asarray(x, dtype))
    assert_close(got, y, bound)
    back, inverse_log_det = conv.inverse_and_log_det(target.asarray(y, dtype))
    assert_close(back, x, bound)
    back = conv.prepare(shape).inverse(got)
    assert_close(back, x, bound)

    sign, expected = np.linalg.slogdet(matrix)
    assert sign != 0
    terms = oracle.log_terms(case.conv(), shape)
    log_bound = BOUNDS[dtype] * max(1.0, condition)
    batch = np.broadcast_to(expected, case.batch_shape)
    for value, wanted in (
        (conv.log_det(shape), np.asarray(expected)),
        (log_det, batch),
        (inverse_log_det, -batch),
    ):
        scale = max(terms, 1.0) * max(1, wanted.size) ** 0.5
        assert_close(value, wanted, log_bound, scale)
        assert dtype_name(value.dtype) == ("float32" if half else dtype)
    for array in (got, back):
        assert library_name(array) == target.library.name
        assert dtype_name(array.dtype) == dtype
        assert array.device == like.device


@every_case
@on(FULL)  # a half precision runs float32's code and casts
def test_vjps(case: Case, target: Target, dtype: str) -> None:
    """Against the dense matrix's transpose and central differences of it in every parameter."""
    matrix, shift, condition = truth(case)
    bound = BOUNDS[dtype] * max(1.0, condition) ** 2
    host = case.conv()
    conv = host.asarrays(target.asarray(np.zeros(()), dtype))
    x, bar = case.images(2)
    log_det_bar = np.linspace(-1.0, 2.0, max(1, int(np.prod(case.batch_shape))))
    log_det_bar = log_det_bar.reshape(case.batch_shape)
    y = apply(matrix, x, case, shift)
    arrays = [target.asarray(a, dtype) for a in (x, y, bar, log_det_bar)]

    gradients, x_bar = conv.forward_vjp(arrays[0], arrays[2], arrays[3])
    assert_close(x_bar, apply(matrix.T, bar, case), bound)
    assert list(gradients) == list(host.parameters())
    inverse_gradients, y_bar = conv.inverse_vjp(arrays[1], arrays[2], arrays[3])
    inverse = np.linalg.inv(matrix)
    assert_close(y_bar, apply(inverse.T, bar, case), bound)

    rng = case.rng()
    for name, array in host.parameters().items():
        direction = rng.standard_normal(array.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))
        forward, backward, scale = _differences(case, name, direction, x, y, bar, log_det_bar)
        for found, wanted in ((gradients, forward), (inverse_gradients, backward)):
            terms = to_numpy(found[name]).astype(np.float64) * direction
            tolerance = 2e-7 * scale + bound * float(np.abs(terms).sum())
            assert abs(float(terms.sum()) - wanted) <= tolerance


def _differences(
    case: Case, name: str, direction: Floats, x: Floats, y: Floats, bar: Floats, log_det_bar: Floats
) -> tuple[float, float, float]:
    """Return the derivatives of both directions' scalar product with their cotangents."""
    step = 2e-6
    values = []
    for sign in (1, -1):
        conv = case.conv()
        moved = conv.replace(**{name: conv.parameters()[name] + sign * step * direction})
        matrix, shift = oracle.affine(moved, case.spatial_shape)
        log_det = np.linalg.slogdet(matrix)[1]
        inverse = np.linalg.inv(matrix)
        forward = (bar * apply(matrix, x, case, shift)).sum() + log_det_bar.sum() * log_det
        undone = apply(inverse, y, case, -inverse @ shift)
        values.append((forward, (bar * undone).sum() - log_det_bar.sum() * log_det))
    forward, backward = (np.asarray(values[0]) - values[1]) / (2 * step)
    scale = 1.0 + float(np.abs(values).max()) + float(abs(forward)) + float(abs(backward))
    return float(forward), float(backward), scale


@every_case
def test_transpose(case: Case) -> None:
    matrix, _, _ = truth(case)
    transposed, shift = oracle.affine(case.conv().transpose(), case.spatial_shape)
    np.testing.assert_allclose(transposed, matrix.T, rtol=0, atol=1e-12 * np.abs(matrix).max())
    assert not shift.any()


@every_case
def test_condition(case: Case) -> None:
    matrix, _, condition = truth(case)
    got = case.conv().condition(case.spatial_shape)
    one_norm = float(np.linalg.cond(matrix, 1))
    assert min(abs(got / condition - 1), abs(got / one_norm - 1)) < 1e-9
    bound = case.conv()._condition_bound(case.spatial_shape)
    assert bound >= condition * (1 - 1e-12)


@every_case
@on(NATIVE)
def test_native_primitives_equal_their_agnostic_twins(
    case: Case, target: Target, dtype: str
) -> None:
    matrix, shift, condition = truth(case)
    conv = case.conv().asarrays(target.asarray(np.zeros(()), dtype))
    (x,) = case.images(1)
    y = apply(matrix, x, case, shift)
    with agnostic():
        forward = conv.forward(target.asarray(x, dtype))
        backward = conv.inverse(target.asarray(y, dtype))
    bound = 2 * BOUNDS[dtype] * max(1.0, condition)
    assert_close(conv.forward(target.asarray(x, dtype)), to_numpy(forward).astype(float), bound)
    assert_close(conv.inverse(target.asarray(y, dtype)), to_numpy(backward).astype(float), bound)
