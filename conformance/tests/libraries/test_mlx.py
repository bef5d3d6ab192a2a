"""MLX on its CPU: values, log-determinants, inverses and `mlx.core.grad` of all operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.array_ops import backend
from invconv.arrays.namespaces import to_numpy
from invconv.extend import register_backend
from invconv_conformance.cases import CASES
from invconv_conformance.cases.case import Case
from invconv_conformance.cases.quick import QUICK, QUICK_MORE

mx: Any = pytest.importorskip("mlx.core")

from invconv_mlx import primitives  # noqa: E402  # it needs MLX

if backend("mlx") is None:  # an installation that is older than the entry point
    register_backend("mlx", primitives)

REGULAR = [case for case in CASES if not case.singular and not case.name.startswith("ill-")]
DIFFERENTIATED = [case for case in REGULAR if case.name in {*QUICK, *QUICK_MORE}]
LIKE = mx.zeros(())


def close(found: Any, expected: Any, tolerance: float) -> bool:
    """Compare with NumPy's float64, relative to the largest entry."""
    largest = max(1.0, float(np.abs(expected).max(initial=0)))
    return bool(np.abs(to_numpy(found) - expected).max(initial=0) <= tolerance * largest)


def in_both(case: Case) -> tuple[Any, Any, Any, Any]:
    """Return an operator and images in MLX, and the same numbers in NumPy's float64."""
    conv, x = case.conv().asarrays(LIKE), case.images(1)[0].astype(np.float32)
    return conv, mx.array(x), conv.asarrays(np.zeros(())), x.astype(np.float64)


@pytest.mark.parametrize("case", REGULAR, ids=lambda case: case.name)
def test_values_are_those_of_numpy(case: Case) -> None:
    conv, x, reference, images = in_both(case)
    solved = reference.prepare(case.spatial_shape, check=False).inverse(images)
    y, log_det = conv.forward_and_log_det(x)
    assert close(y, reference.forward(images), 3e-5)
    assert close(log_det, reference.forward_and_log_det(images)[1], 3e-5)
    assert close(conv.inverse(x), solved, 3e-5)
    assert close(conv.prepare(case.spatial_shape).inverse(x), solved, 3e-5)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("case", DIFFERENTIATED, ids=lambda case: case.name)
def test_gradients_are_those_of_numpy(case: Case, direction: str) -> None:
    conv, x, reference, images = in_both(case)
    z_bar = case.images(2)[1].astype(np.float32)

    def loss(parameters: dict[str, Any], x: Any) -> Any:
        z, log_det = getattr(conv.replace(**parameters), f"{direction}_and_log_det")(x)
        return (z * mx.array(z_bar)).sum() + log_det.sum()

    gradients, x_bar = mx.grad(loss, argnums=(0, 1))(conv.parameters(), x)
    vjp = getattr(reference, f"{direction}_vjp")
    expected, expected_x = vjp(images, z_bar.astype(np.float64), np.ones(case.batch_shape))
    assert close(x_bar, expected_x, 1e-4)
    for name, gradient in expected.items():
        assert close(gradients[name], gradient, 1e-4), name


def test_a_singular_operator_has_a_log_determinant_of_minus_infinity() -> None:
    for case in (case for case in CASES if case.singular):
        conv, x, _, _ = in_both(case)
        assert float(conv.log_det(case.spatial_shape)) == -np.inf, case.name
        assert np.isnan(to_numpy(conv.inverse(x))).all(), case.name


def test_a_file_carries_an_operator_to_mlx(tmp_path: Path) -> None:
    conv = ic.EmergingConv.init(2, rng=np.random.default_rng(0))
    ic.save(conv.asarrays(LIKE), tmp_path / "conv.safetensors")
    loaded = ic.load(tmp_path / "conv.safetensors", like=LIKE)
    assert "float32 mlx" in repr(loaded)
    x = np.random.default_rng(1).standard_normal((2, 2, 4, 5))
    assert close(loaded.forward(mx.array(x.astype(np.float32))), conv.forward(x), 1e-5)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(kind: str) -> None:
    like = mx.zeros((), dtype=getattr(mx, kind))
    conv = ic.PeriodicConv.init(2, rng=np.random.default_rng(0)).asarrays(like)
    x = mx.ones((1, 2, 4, 4), dtype=like.dtype)
    y = conv.inverse(conv.forward(x))
    assert y.dtype == like.dtype
    assert close(y, np.ones(x.shape), 0.05)


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match="like: expected float32, got float64, of which MLX has no"):
        ic.Conv1x1(np.eye(2)).asarrays(mx.zeros((), dtype=mx.float64))
