"""MLX on its CPU: the laws, and `mlx.core.grad`, which they do not know."""

from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases.case import Case
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.cases.table import CASES
from tests.programs import python

mx: Any = pytest.importorskip("mlx.core")

NAMES = {name for name in (*QUICK, *QUICK_MORE) if not name.startswith(("singular-", "ill-"))}
DIFFERENTIATED = [case for case in CASES if case.name in NAMES]


def test_the_laws_hold() -> None:
    command = ["-m", "invconv", "conformance", "--namespace", "mlx.core", "--quick"]
    python(*command, "--workers=1", "--seconds=600")


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
