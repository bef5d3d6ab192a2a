"""CuPy's launches, on stand-ins for CuPy and for the driver: kernels run on NumPy's memory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.libraries.stand_in_cupy import runner

Run = Callable[[str], "subprocess.CompletedProcess[str]"]

BEFORE = """\
import pickle, sys
from pathlib import Path
import numpy as np
from tests.launches.stand_in_driver import STREAM, Driver
driver = Driver(Path(sys.argv[1])).install()
import array_api_compat.cupy as xp
import invconv as ic, invconv_cupy.primitives as p
from invconv.arrays.namespaces import to_numpy
rng = np.random.default_rng(0)
host = ic.AutoregressiveConv.init(3, direction=(1, -1), rng=rng)
values = rng.standard_normal((2, 3, 5, 7))
y, conv = xp.asarray(values), host.asarrays(xp.empty(0))
"""

SOLVES = """\
prepared = conv.prepare((5, 7))
assert prepared.plan["method"] == "CUDA kernel", prepared.plan
before = len(driver.launches)
x = prepared._state.solver(y)
(solve,) = driver.launches[before:]
assert (solve.kernel, solve.device, solve.stream) == ("solve", 0, STREAM), solve
assert solve.pointers["y"] == y.data.ptr and solve.pointers["x"] == x.data.ptr
assert solve.pointers["counters"] == 0 and solve.grid["images"] == 2
np.testing.assert_array_equal(to_numpy(x), host.inverse(values))
back = xp.asarray(np.ascontiguousarray(values.transpose(0, 3, 2, 1)))
x = conv.inverse(xp.permute_dims(back, (0, 3, 2, 1)))
np.testing.assert_array_equal(to_numpy(x), host.inverse(values))
gradient = conv.inverse_vjp(y, y)[1]
np.testing.assert_allclose(to_numpy(gradient), host.inverse_vjp(values, values)[1], rtol=1e-12)
again = pickle.loads(pickle.dumps(prepared._state.solver))
np.testing.assert_array_equal(to_numpy(again(y)), to_numpy(prepared._state.solver(y)))
"""

WHAT_A_GPU_MUST_DO = "from tests.launches import checks\nchecks.of_cupy(checks.SMALL)\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compiled_kernels: Path) -> Run:
    """Return a function that runs Python with the stand-ins."""
    python = runner(tmp_path_factory.mktemp("cupy"), STAND_IN_DRIVER="1")
    return lambda code: python("-c", BEFORE + code, str(compiled_kernels))


@pytest.mark.parametrize("code", [SOLVES, WHAT_A_GPU_MUST_DO], ids=["one launch", "checks"])
def test_it_runs(code: str, run: Run) -> None:
    done = run(code)
    assert done.returncode == 0, done.stderr
