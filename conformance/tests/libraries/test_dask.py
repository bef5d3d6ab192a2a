"""Arrays larger than one machine's memory: blocks of samples on a cluster of processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster

import invconv as ic

MEMORY = 400 * 2**20  # of a worker, whose libraries take a good part of it
SAMPLES, BLOCK = 8192, 128


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        dask.config.set({"distributed.worker.memory.terminate": 0.95}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            memory_limit=MEMORY,
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


def blocks_of_noise(shape: tuple[int, ...]) -> da.Array:
    """Return float32 noise in blocks of samples, each from a seed of its own."""

    def noise(block_info: Any = None) -> np.ndarray[Any, Any]:
        place = block_info[None]
        rng = np.random.default_rng(place["chunk-location"])
        pixels: np.ndarray[Any, Any] = rng.standard_normal(place["chunk-shape"], np.float32)
        return pixels

    chunks = ((BLOCK,) * (shape[0] // BLOCK), *((n,) for n in shape[1:]))
    return da.map_blocks(noise, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 4, "f4"))


@pytest.mark.slow
def test_an_array_larger_than_a_workers_memory(client: Client) -> None:
    shape = (SAMPLES, 12, 32, 32)
    conv = ic.EmergingConv.init(12, rng=np.random.default_rng(0), like=np.empty(0, np.float32))
    prepared = conv.prepare(shape[2:])
    y = blocks_of_noise(shape)
    assert y.nbytes > 0.95 * MEMORY
    x = da.map_blocks(prepared.inverse, y, dtype=y.dtype, meta=y._meta)
    error = abs(da.map_blocks(conv.forward, x, dtype=y.dtype, meta=y._meta) - y).max()
    seen, error = dask.compute(x[::BLOCK, :, ::16, ::16], error)
    assert seen.shape == (SAMPLES // BLOCK, 12, 2, 2)
    assert float(error) < 2e-5
    block = conv.inverse(np.asarray(y[:BLOCK]))
    np.testing.assert_allclose(seen[:1], block[:1, :, ::16, ::16], rtol=0, atol=1e-6)
    assert len(client.scheduler_info()["workers"]) == 2  # none was killed and started again


class Counting:
    """A prepared inverse that says how often a process has unpickled it."""

    unpickled = 0

    def __init__(self, prepared: ic.PreparedInverse) -> None:
        self.prepared = prepared

    def __call__(self, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Solve, and say the count instead."""
        result: np.ndarray[Any, Any] = self.prepared.inverse(y)
        return np.full_like(result, Counting.unpickled)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.prepared,)


def _unpickle(prepared: ic.PreparedInverse) -> Counting:
    Counting.unpickled += 1
    return Counting(prepared)


@pytest.mark.parametrize("size", [16, 256])
def test_a_prepared_inverse_pickles_small(size: int) -> None:
    conv = ic.EmergingConv.init(12, rng=np.random.default_rng(0), like=np.empty(0, np.float32))
    prepared = conv.prepare((size, size))
    y = np.random.default_rng(1).standard_normal((1, 12, size, size)).astype(np.float32)
    x = prepared.inverse(y)  # what a solve keeps for the next one is not sent
    text = pickle.dumps(prepared)
    assert len(text) < 40_000
    np.testing.assert_array_equal(pickle.loads(text).inverse(y), x)
