"""Tiles of pixels solved at once: the same inverse, never an unstable one, and a sane choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv import numpy_primitives, planes, relay, tiles
from invconv.arrays import to_numpy
from invconv_conformance import oracle
from invconv_torch import in_memory, solvers

RNG = np.random.default_rng(0)
TILES = ((1, 2), (1, 3), (2, 1), (2, 2), (2, 4), (4, 2), (6, 8))
KINDS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2, "direction": (1, 1)},
    {"kernel_size": 2, "direction": (-1, -1)},
    {"kernel_size": (3, 4), "direction": (1, -1)},
    {"kernel_size": 3, "direction": (-1, 1), "dilation": (1, 2)},
    {"kernel_size": 3, "mask": "raster", "direction": 1},
    {"kernel_size": 5, "mask": "raster", "direction": -1},
)
DEVICE = "torch as on a device"
LIKE = {
    "numpy": np.zeros(()),
    "torch": torch.zeros((), dtype=torch.float64),
    DEVICE: torch.zeros((), dtype=torch.float64),
}


@pytest.fixture(autouse=True)
def as_on_a_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch run its own waves on the CPU."""
    if DEVICE in getattr(request.node, "callspec", SimpleNamespace(params={})).params.values():
        monkeypatch.setattr(solvers, "_on_host", lambda x: False)


@pytest.mark.parametrize("adds", [True, False], ids=["solved first", "in the window"])
@pytest.mark.parametrize("library", LIKE)
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_tile_solves_the_dense_system(
    kind: dict[str, Any], channels: int, library: str, adds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_primitives, "COSTS", tiles.Costs(call=1e-6, adds=adds))
    conv = ic.AutoregressiveConv.init(channels, rng=RNG, **kind)
    matrix, _ = oracle.affine(conv, (6, 8))
    y = RNG.standard_normal((2, channels, 6, 8))
    wanted = np.linalg.solve(matrix, y.reshape(2, -1).T).T.reshape(y.shape)
    used = set()
    for tile in (*TILES, (1, 1)):
        prepared = conv.asarrays(LIKE[library]).prepare((6, 8), check=False, tile=tile)
        x = to_numpy(prepared.inverse(y if library == "numpy" else torch.as_tensor(y)))
        np.testing.assert_allclose(x, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
        used |= set(prepared.plan["tiles"].values())
        one_row = used and max(h for h, _ in prepared.plan["tiles"].values()) == 1
        assert bool(prepared.plan["T^-1 y first"]) == bool(one_row and adds and library != DEVICE)
    assert len(used) >= (2 if "mask" in kind else 3)  # a raster's tiles are one row high


@pytest.mark.parametrize("library", LIKE)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.usefixtures("relayed")
def test_a_relay_of_tiles_solves_the_dense_system(
    kind: dict[str, Any], channels: int, library: str
) -> None:
    conv = ic.AutoregressiveConv.init(channels, rng=RNG, **kind)
    for grid in ((6, 8), (12, 4), (1, 8), (8, 1)):
        matrix, _ = oracle.affine(conv, grid)
        relays = set()
        for tile in (*TILES, (1, 1), (3, 4), (6, 4)):
            prepared = conv.asarrays(LIKE[library]).prepare(grid, check=False, tile=tile)
            for _ in range(2):  # the second time in a buffer that was used
                y = RNG.standard_normal((1, channels, *grid))
                wanted = np.linalg.solve(matrix, y.reshape(-1)).reshape(y.shape)
                x = to_numpy(prepared.inverse(y if library == "numpy" else torch.as_tensor(y)))
                np.testing.assert_allclose(x, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
            relays |= {prepared.plan["tiles"][k] for k in prepared.plan["one product a wavefront"]}
        assert len(relays) >= (0 if "mask" in kind or 1 in grid else 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tile", [(1, 1), (2, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("kernel_size", [(2, 1), (2, 2), (1, 3)], ids=str)
def test_memory_in_whole_pages_is_no_trap(
    kernel_size: tuple[int, int], tile: tuple[int, int], dtype: str
) -> None:
    """Pixels, records or rows that are whole pages apart would share one set of the cache."""
    for batch, channels in ((1, 32), (1, 64), (1, 128), (1, 256), (1, 512), (1, 1024), (2, 1024)):
        kernel = 0.1 / channels * RNG.standard_normal((channels, channels, *kernel_size))
        kernel[:, :, 0, 0] = np.eye(channels)
        conv = ic.AutoregressiveConv(kernel.astype(dtype))
        x = RNG.standard_normal((batch, channels, 4, 6)).astype(dtype)
        y = conv.forward(x)
        for way in (None, tile):
            found = conv.prepare((4, 6), check=False, tile=way).inverse(y)
            assert np.abs(found - x).max() < 50 * np.finfo(dtype).eps, (batch, channels, way)


def test_a_relay_stops_where_its_memory_would_be_large() -> None:
    reach = ((0, 1), (1, 0), (1, 1))
    assert relay.possible((1, 12, 64, 64), reach, 4, (1, 1))
    assert not relay.possible((1, 12, 512, 512), reach, 4, (2, 2))
    assert not relay.possible((2, 12, 64, 64), reach, 4, (1, 1))
    for tile in ((1, 1), (2, 4)):
        plan = relay.relay((1, 12, 64, 64), reach, 1, 4, tile)
        assert plan.length * 4 <= 2**23


def test_a_tile_that_does_not_fit_is_not_used() -> None:
    conv = ic.AutoregressiveConv.init(2, kernel_size=2, rng=RNG)
    y = RNG.standard_normal((1, 2, 5, 7))
    prepared = conv.prepare((5, 7), tile=(2, 2))
    np.testing.assert_allclose(conv.forward(prepared.inverse(y)), y, atol=1e-12)
    assert prepared.plan["tiles"] == {(1, 2, 5, 7): (1, 1)}


@pytest.mark.parametrize(
    ("tile", "error"),
    [((0, 2), ValueError), ((1, 2, 3), ValueError), ("2x2", ValueError), (1.5, TypeError)],
)
def test_what_is_no_tile_is_refused(tile: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="tile: expected"):
        ic.AutoregressiveConv.init(2, rng=RNG).prepare((4, 4), tile=tile)


def backward_error(library: str, tap: float, dtype: str, tile: tuple[int, int] | None) -> float:
    """Return the worse of two normwise backward errors, over C k eps: of random y, of y = K x."""
    kernel = np.zeros((1, 1, 1, 2), dtype)
    kernel[..., 0, 0], kernel[..., 0, 1] = 1.0, tap
    conv = ic.AutoregressiveConv(kernel, direction=(1, 1))
    matrix, _ = oracle.affine(conv.asarrays(np.zeros(())), (1, 16))
    x = np.random.default_rng(1).standard_normal(16)
    errors = []
    for values in (x, matrix @ x):
        y = values.astype(dtype).reshape(1, 1, 1, 16)
        like = y if library == "numpy" else torch.as_tensor(y)
        prepared = conv.asarrays(like).prepare((1, 16), check=False, tile=tile)
        found = to_numpy(prepared.inverse(like)).astype(np.longdouble).reshape(-1)
        rest = np.linalg.norm((matrix @ found - y.reshape(-1)).astype(float))
        size = np.linalg.norm(matrix, 2) * np.linalg.norm(found.astype(float))
        size += np.linalg.norm(y.astype(float))
        errors.append(float(rest / (2 * np.finfo(dtype).eps * size)))
    return max(errors)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tap", [-1.5, -3.0, -29.6])
@pytest.mark.parametrize("library", LIKE)
def test_no_tile_loses_digits_that_substitution_keeps(library: str, tap: float, dtype: str) -> None:
    """The inverse grows up to 29.6^15: an explicit inverse of a tile would be useless."""
    for tile in (None, (1, 2), (1, 8), (1, 16)):
        assert backward_error(library, tap, dtype, tile) <= 1


def test_an_unstable_tile_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "stable_inverse", np.linalg.inv)
    assert backward_error("numpy", -3.0, "float32", (1, 16)) > 1e3


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let everything run as a relay that can."""
    tiles.ranked.cache_clear()
    monkeypatch.setattr(tiles, "_seconds", lambda *arguments: arguments[2].way != "relay")
    yield
    tiles.ranked.cache_clear()


@pytest.mark.parametrize("tile", [(1, 1), (1, 2), (2, 2), (1, 4), (4, 4)])
@pytest.mark.parametrize("library", LIKE)
def test_the_laws_hold_with_every_tile(
    library: str, tile: tuple[int, int], hold_the_laws: Callable[..., None]
) -> None:
    with tiles.tile_by_hand(tile):
        hold_the_laws(library.split()[0], ("float64", "float32"))


@pytest.mark.usefixtures("relayed")
@pytest.mark.parametrize("tile", [(1, 1), (2, 4)])
@pytest.mark.parametrize("library", LIKE)
def test_the_laws_hold_in_relays(
    library: str, tile: tuple[int, int], hold_the_laws: Callable[..., None]
) -> None:
    with tiles.tile_by_hand(tile):
        hold_the_laws(library.split()[0], ("float64", "float32"))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("tile", [(1, 1), (2, 2), (1, 4)])
def test_the_laws_hold_with_torchs_products(
    tile: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    hold_the_laws: Callable[..., None],
) -> None:
    monkeypatch.setattr(in_memory, "_LARGE", 0)
    monkeypatch.setattr(in_memory, "TEAM", None)
    in_memory.IN_THREADS._kept._kept.clear()
    with tiles.tile_by_hand(tile):
        hold_the_laws("torch", ("float64", "float32"))
    assert in_memory.IN_THREADS._kept._kept


def test_the_planner_prefers_few_large_products_where_calls_dominate() -> None:
    corner, raster = ((0, 1), (1, 0), (1, 1)), ((0, 1), (1, -1), (1, 0), (1, 1))
    costs = tiles.Costs(call=2e-6)
    assert tiles.ranked((64, 48, 4, 4), corner, costs, 4) == (tiles.SAFE,)
    assert tiles.ranked((16, 48, 64, 64), corner, costs, 4) == (tiles.SAFE,)
    (high, wide), way = tiles.ranked((1, 3, 256, 256), corner, costs, 4)[0]
    assert high * wide >= 8
    assert way == "relay"
    assert all(c.tile[0] == 1 for c in tiles.ranked((1, 3, 256, 256), raster, costs, 4))
    assert {c.way for c in tiles.ranked((1, 3, 256, 256), raster, costs, 4)} == {"pitched"}
    for shape in ((1, 3, 256, 256), (1, 12, 15, 16)):
        order = tiles.ranked(shape, corner, costs, 4)
        assert order[-1] == tiles.SAFE
        assert all(shape[2] % h == 0 and shape[3] % w == 0 for (h, w), _ in order)
    adding = tiles.Costs(call=1e-6, adds=True)
    (high, wide), way = tiles.ranked((100, 3, 32, 32), corner, adding, 4)[0]
    assert (high, wide > 1, way) == (1, True, "solved first")
    for shape in ((16, 48, 64, 64), (1, 12, 512, 512)):
        first = tiles.Choice((1, 1), "solved first")
        assert tiles.ranked(shape, corner, adding, 4) == (first, tiles.SAFE)
