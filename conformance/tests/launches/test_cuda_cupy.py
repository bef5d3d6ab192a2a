"""CuPy's launches, on stand-ins for CuPy and for the driver: kernels run on NumPy's memory."""

from __future__ import annotations

from pathlib import Path

from tests.libraries.stand_in_cupy import runner

PROGRAM = """\
import sys
from pathlib import Path
from tests.launches.stand_in_driver import STREAM, Driver
driver = Driver(Path(sys.argv[1])).install()
from tests.launches import checks
checks.of_cupy(checks.SMALL)
solves = [launch for launch in driver.launches if launch.kernel == "solve"]
assert {(n.device, n.stream, n.grid["images"]) for n in solves} == {(0, STREAM, 4)}, solves
"""


def test_what_a_gpu_must_do(tmp_path: Path, compiled_kernels: Path) -> None:
    done = runner(tmp_path, STAND_IN_DRIVER="1")("-c", PROGRAM, str(compiled_kernels))
    assert done.returncode == 0, done.stderr
