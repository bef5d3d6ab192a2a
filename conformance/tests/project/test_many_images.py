"""The programs of the guide's page about many images, each on two processes."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ENVIRONMENT, ROOT, python

PAGE = (ROOT / "benchmarks/guide/many-images.md").read_text(encoding="utf-8")
DASK, JAX, TORCH = re.findall(r"```py(?:thon)?\n(.*?)```", PAGE, re.DOTALL)
CLUSTER = """
from dask.distributed import Client
if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        exec(PROGRAM)
        print(len(client.scheduler_info()["workers"]), "processes")
"""


@pytest.mark.slow
def test_dask(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"PROGRAM = {DASK!r}\n{CLUSTER}", encoding="utf-8")
    assert python(program, timeout=200).stdout == "2 processes\n"


@pytest.mark.slow
def test_jax(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    program = tmp_path / "program.py"
    begin = f"import jax, sys\njax.distributed.initialize({place!r}, 2, int(sys.argv[1]))\n"
    program.write_text(f"{begin}{JAX}\nprint(y.shape[0], 'images')", encoding="utf-8")
    here: dict[str, Any] = {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen([sys.executable, program, "1"], env=ENVIRONMENT | here) as other:
        assert python(program, "0", timeout=200, **here).stdout.endswith("16 images\n")
        assert other.wait(60) == 0


@pytest.mark.slow
def test_torch(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"{TORCH}\nprint('done')", encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert python(*launch, program, timeout=200).stdout.count("done") == 2
