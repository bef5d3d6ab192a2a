"""The stand-in driver as a fixture, and what it compiles, once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launches.stand_in_driver import Driver, forget


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
