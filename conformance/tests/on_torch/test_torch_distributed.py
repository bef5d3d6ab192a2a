"""The documented torchrun command, with two processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--sharded"]], ids=["copies", "sharded"])
def test_two_processes_train_as_one(options: list[str]) -> None:
    folders = [ROOT / name for name in (".", "backends")]
    paths = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone"]
    done = subprocess.run(
        [*command, "conformance/tests/on_torch/torch_ddp.py", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "2 processes, gloo: losses and gradients of 3 steps equal" in done.stdout
