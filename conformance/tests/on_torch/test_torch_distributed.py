"""The documented torchrun command, with two processes on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import python


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--sharded"]], ids=["copies", "sharded"])
def test_two_processes_train_as_one(options: list[str]) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = Path(__file__).with_name("torch_ddp.py")
    done = python(*launch, program, *options, timeout=100)
    assert "2 processes, gloo: losses and gradients of 3 steps equal" in done.stdout
