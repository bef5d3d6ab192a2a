"""CuPy's launches, on stand-ins for CuPy and for the driver: kernels run on NumPy's memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.libraries.stand_in_cupy import install

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

WRONG = """\
x = conv.inverse(xp.permute_dims(y, (0, 1, 3, 2)))
wanted = host.inverse(np.ascontiguousarray(values.transpose(0, 1, 3, 2)))
np.testing.assert_array_equal(to_numpy(x), wanted)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compiled_kernels: Path) -> Run:
    """Return a function that runs Python with the stand-ins."""
    folder = tmp_path_factory.mktemp("cupy")
    install(folder)

    def python(code: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(folder), *sys.path])
        stand_in = {"PYTHONPATH": path, "PYTHONWARNINGS": "error", "STAND_IN_DRIVER": "1"}
        command = [sys.executable, "-c", BEFORE + code, str(compiled_kernels)]
        environment = os.environ | stand_in
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)

    return python


def test_a_solve_is_one_launch_on_the_current_stream(run: Run) -> None:
    done = run(SOLVES + WRONG)
    assert done.returncode == 0, done.stderr


def test_what_a_gpu_must_do(run: Run) -> None:
    done = run("from tests.launches import checks\nchecks.of_cupy(checks.SMALL)\n")
    assert done.returncode == 0, done.stderr
