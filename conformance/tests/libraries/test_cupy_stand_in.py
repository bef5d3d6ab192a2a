"""The CuPy adapter without a GPU: what it runs and calls, on a stand-in for CuPy.

Not yet run on a GPU: ``pytest -m gpu`` does that where there is one (`launches.test_cuda_gpu`).
"""

import importlib
import operator
from pathlib import Path
from typing import Any

import pytest

from tests.libraries.stand_in_cupy import runner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return runner(tmp_path_factory.mktemp("cupy"))


def test_the_suite_holds_and_calls_what_cupy_has(run: Any, tmp_path: Path) -> None:
    """No transfer to the host, no wait: a read raises, see `tests.libraries.stand_in_cupy`."""
    suite = ("-m", "invconv", "conformance", "--library", "cupy", "--dtype", "float32", "--quick")
    calls = tmp_path / "calls"
    run(*suite, "-k", "not exponential and (2d or bias)", STAND_IN_CALLS=str(calls))
    names = set(calls.read_text(encoding="utf-8").split())
    native = {"cupy.lib.stride_tricks.as_strided", "cupyx.scipy.linalg.solve_triangular"}
    assert native | {"cupy.matmul"} <= names
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'invconv[cupy]'")
    importlib.import_module("cupy.lib.stride_tricks")
    used = ("T", "data", "device", "itemsize", "nbytes", "strides", "__dlpack_device__")
    for name in (*sorted(names - native), *(f"ndarray.{attribute}" for attribute in used)):
        assert operator.attrgetter(name.removeprefix("cupy."))(cupy), name


ELSEWHERE = """\
import array_api_compat.cupy as xp, cupy, numpy as np, pytest, re, types
import invconv
y = xp.asarray(np.ones((1, 2, 3, 3)))
conv = invconv.AutoregressiveConv.init(2, rng=np.random.default_rng(0), like=y)
conv.inverse(y)
conv.prepare((3, 3))
prepared, calls = conv.prepare((3, 3)), (conv.forward, conv.inverse, conv.inverse_and_log_det)
cupy.cuda.Device = lambda: types.SimpleNamespace(id=1)
for call in (*[lambda f=f: f(y) for f in calls], lambda: conv.log_det((3, 3)),
             lambda: conv.prepare((3, 3)), lambda: prepared.inverse(y)):
    with pytest.raises(ValueError, match=re.escape("make that current: with cupy.cuda.Device(0):")):
        call()
from invconv_conformance.libraries import KNOWN
cupy.cuda.runtime.getDeviceCount = lambda: 2
assert KNOWN["cupy"].devices() == ["cuda:0"]
"""


PRECISION = """\
import cupy._core as core, array_api_compat.cupy as xp, numpy as np, pytest
import invconv, invconv_cupy.primitives as p
from invconv_cupy.primitives import full_precision
core.set_compute_type("float32", 3)
y = xp.asarray(np.ones((1, 2, 3, 3), np.float32))
conv = invconv.AutoregressiveConv.init(2, rng=np.random.default_rng(0), like=y)
seen = []
def watched(module):
    original = module.matmul
    def matmul(*arguments, **options):
        seen.append(core.get_compute_type("float32"))
        return original(*arguments, **options)
    module.matmul = matmul
watched(p.cupy)
conv.inverse_vjp(conv.forward(y), y)
assert len(seen) > 5 and set(seen) == {0}, seen
assert core.get_compute_type("float32") == 3
with pytest.raises(KeyError), full_precision(), full_precision():
    raise KeyError
assert core.get_compute_type("float32") == 3
"""


@pytest.mark.parametrize("program", [ELSEWHERE, PRECISION], ids=["elsewhere", "TF32"])
def test_another_device_is_named_and_tf32_decides_no_result(program: str, run: Any) -> None:
    run("-c", program)
