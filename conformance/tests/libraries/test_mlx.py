"""MLX on its CPU: the laws, and `mlx.core.grad`, which they do not know."""

from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance import check_operator
from invconv_conformance.cases.table import CASES, Case
from invconv_conformance.libraries import unadapted
from invconv_conformance.run import QUICK, QUICK_MORE, checks

mx: Any = pytest.importorskip("mlx.core")

NAMES = {name for name in (*QUICK, *QUICK_MORE) if not name.startswith(("singular-", "ill-"))}
CALLED = "least_squares-symmetricconv-by-2", "least_squares-periodicconv-array"
DIFFERENTIATED = [case for case in CASES if case.name in NAMES]


@pytest.mark.parametrize("name", [*(n for n in QUICK if n != "chain-inverses"), *CALLED])
def test_the_laws_hold(name: str) -> None:
    results = [one.run() for one in checks(unadapted("mlx.core").columns(), [name])]
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]
    assert any(r.status == "pass" for r in results)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("case", DIFFERENTIATED, ids=lambda case: case.name)
def test_gradients_are_those_of_numpy(case: Case, direction: str) -> None:
    x, z_bar = (image.astype(np.float32) for image in case.images(2))
    conv = case.conv().asarrays(mx.zeros(()))

    def loss(parameters: dict[str, Any], x: Any) -> Any:
        z, log_det = getattr(conv.replace(**parameters), f"{direction}_and_log_det")(x)
        return (z * mx.array(z_bar)).sum() + log_det.sum()

    gradients, x_bar = mx.grad(loss, argnums=(0, 1))(conv.parameters(), mx.array(x))
    vjp = getattr(conv.asarrays(np.zeros(())), f"{direction}_vjp")
    expected, expected_x = vjp(x.astype(float), z_bar.astype(float), np.ones(case.batch_shape))
    for name, wanted in (expected | {"x": expected_x}).items():
        error = np.abs(to_numpy(x_bar if name == "x" else gradients[name]) - wanted).max(initial=0)
        assert error <= 1e-4 * max(1.0, float(np.abs(wanted).max(initial=0))), name


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match="like: expected float32, got float64, of which MLX has no"):
        ic.Conv1x1(np.eye(2)).asarrays(mx.zeros((), dtype=mx.float64))
    with pytest.raises(ValueError, match="precision: mlx has no float64 here"):
        ic.Conv1x1(np.eye(2)).asarrays(mx.zeros(())).prepare((2,), precision="float64")


def test_a_matrix_is_held_in_numpys_float64() -> None:
    conv = ic.Conv1x1(np.asarray([[2.0, 1.0], [0.0, 1.0]]))
    check_operator(conv, [[2, 1], [0, 1]], xp=mx)
    with pytest.raises(AssertionError, match=r"Conv1x1, numpy float64: forward\.value"):
        check_operator(conv, [[5, 5], [0, 9]], xp=mx)


def test_pivots_are_exchanged_underflow_and_are_each_looked_at() -> None:
    """By matrices with a zero first, with a tiny determinant, and singular in one block of two."""
    turned, tiny = np.asarray([[0.0, 2.0, 0], [0.25, 0, 0], [0, 0, -3]]), 1e-20 * np.eye(3)
    y = np.arange(6.0).reshape(1, 3, 2)
    for weight in (turned, tiny):
        conv = ic.Conv1x1(mx.array(weight.astype(np.float32)))
        wanted = 2 * np.linalg.slogdet(weight)[1]
        assert float(conv.log_det((2,)).item()) == pytest.approx(wanted, rel=1e-6)
        found = to_numpy(conv.inverse(mx.array((weight @ y).astype(np.float32))))
        np.testing.assert_allclose(found, y, rtol=1e-6)
    lost: Any = ic.Conv1x1(mx.array(np.asarray([[1.0, 2.0], [2.0, 4.0]], np.float32)))
    half = ic.PeriodicConv(mx.array(np.asarray([[[1.0, 1.0]]], np.float32)))  # at one frequency
    thirds = np.outer([1, 1 / 3, 3], [1, 1 / 3, 3])  # of rank 1, but for rounding
    found = ic.Conv1x1(mx.array(thirds.astype(np.float32))).least_squares(mx.ones((1, 3, 1)))
    wanted = thirds.sum(1) / thirds.trace() ** 2
    np.testing.assert_allclose(to_numpy(found)[0, :, 0], wanted, rtol=1e-5)
    for one in (lost, half):
        assert one.log_det((2,)).item() == -np.inf
        x = one.inverse(mx.array(np.ones((1, one.channels, 2), np.float32)))
        assert np.isnan(to_numpy(x)).all()
