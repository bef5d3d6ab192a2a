"""The stand-in driver as a fixture, what it compiles, once a session, and tensors for it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from invconv.kernels.cuda.launch import DeviceOps
from invconv_torch.native import kernels
from tests.launches.stand_in_driver import STREAM, Driver, forget


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of compiled kernels."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def driver(compiled_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Return a driver that runs kernels on this processor, in the place of CUDA's."""
    found = Driver(compiled_kernels).install(monkeypatch.setattr)
    yield found
    forget()
    assert found.library.stand_in_contexts() == 0  # each was taken away again
    assert found.library.stand_in_mode() == 0
    found.library.stand_in_capture(False)


@pytest.fixture
def on_this_processor(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Have tensors in host memory be launched as if they were on a device."""
    plain = (torch.Tensor, torch.nn.Parameter)
    ops = DeviceOps(
        lambda x: 0 if type(x) in plain else None,
        torch.Tensor.data_ptr,
        lambda x: STREAM,
        kernels.CUDA.contiguous,
    )
    monkeypatch.setattr(kernels, "CUDA", ops)
    monkeypatch.setattr(kernels, "reason", lambda size: "a device is tested")
    return driver
