"""Many calls in one, and parts of a batch by several threads: the same numbers as one by one."""

from __future__ import annotations

import gc
import importlib
import math
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding
import numpy as np
import pytest
import torch

import invconv as ic
from invconv import blas, replay, team, tiles
from invconv.numpy_primitives import STRIDED
from invconv_conformance import oracle
from invconv_torch import in_memory

Floats = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
KINDS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2, "direction": (1, 1)},
    {"kernel_size": (3, 2), "direction": (-1, -1)},
    {"kernel_size": (3, 4), "direction": (1, -1)},
    {"kernel_size": 3, "direction": (-1, 1), "dilation": (1, 2)},
    {"kernel_size": 3, "mask": "raster", "direction": -1},
)


@pytest.fixture
def no_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (replay, team, in_memory):
        monkeypatch.setattr(module, "loops", lambda: None)


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch share out any batch."""
    monkeypatch.setattr(in_memory, "_SHARED", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def chain_of_products(count: int, dtype: str) -> tuple[list[replay.Call], Floats, Floats]:
    """Return calls that multiply one after the other, where they leave it, and what is right."""
    matrices = RNG.standard_normal((count, 4, 4)).astype(dtype) / 2
    rows = np.zeros((count + 1, 5, 4), dtype)
    rows[0] = RNG.standard_normal((5, 4))
    calls = [blas.product(rows[i], matrices[i], rows[i + 1])[0] for i in range(count)]
    wanted = rows[0].astype(np.longdouble)
    for matrix in matrices:
        wanted = wanted @ matrix
    return calls, rows[-1], wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("between", [False, True], ids=["all of BLAS", "with others"])
@pytest.mark.parametrize("native", [True, False], ids=["in one", "without llvmlite"])
def test_calls_are_made_in_order(
    native: bool, between: bool, dtype: str, request: pytest.FixtureRequest
) -> None:
    if not native:
        request.getfixturevalue("no_llvmlite")
    calls, found, wanted = chain_of_products(12, dtype)
    if between:
        place = found.base
        assert place is not None
        calls.insert(6, lambda: np.multiply(place[6], 2, out=place[6]))
        wanted = 2 * wanted
    joined = replay.in_turn(calls)
    assert len(joined) == (len(calls) if not native else 3 if between else 1)
    del calls
    gc.collect()  # the calls must keep what they read
    for _ in range(2):
        for call in joined:
            call()
        bound = 100 * np.finfo(dtype).eps * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted.astype(dtype), rtol=0, atol=bound)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_threads_make_each_call_of_each_part_once(count: int) -> None:
    assert in_memory.TEAM is not None
    parts, found, wanted = zip(
        *(chain_of_products(n + 1, "float64") for n in range(count)), strict=True
    )
    program = in_memory.TEAM.program(list(parts))
    assert program is not None
    del parts
    gc.collect()
    program()
    for x, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, right.astype(float), rtol=1e-12, atol=1e-12)


def test_what_is_not_of_blas_is_no_program() -> None:
    assert in_memory.TEAM is not None
    calls, _, _ = chain_of_products(3, "float64")
    assert in_memory.TEAM.program([calls, [lambda: None]]) is None


def test_threads_that_are_not_openmps_are_not_used() -> None:
    assert team.Team.of(None, lambda: 2) is None
    assert team.Team.of("/no/such/library.so", lambda: 2) is None
    assert (
        team.Team.of(importlib.import_module("numpy._core._multiarray_umath").__file__, lambda: 2)
        is None
    )


@pytest.mark.parametrize("order", ["rows", "columns", "neither"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stacked_products_go_where_they_should(dtype: str, order: str) -> None:
    assert in_memory.TEAM is not None
    shapes = {"rows": (2, 3, 9, 4), "columns": (2, 4, 3, 9), "neither": (2, 3, 9, 8)}
    views: dict[str, Callable[[Floats], Floats]] = {
        "rows": lambda x: x,
        "columns": lambda x: x.transpose(0, 2, 3, 1),
        "neither": lambda x: x[..., ::2],
    }
    first, second = (RNG.standard_normal(shapes[order]).astype(dtype) for _ in "ab")
    matrix = RNG.standard_normal((4, 6)).astype(dtype)
    buffer = np.full((2, 4, 11, 6), np.pi, dtype)
    out = buffer[:, 1:, 1:-1]
    steps = blas.stacked_product(views[order](first), matrix, out)
    if order == "neither":
        assert steps is None
        return
    assert steps is not None
    program = in_memory.TEAM.program([[steps]])
    assert program is not None
    for given in (first, second, first):
        program.read([given])
        program()
        wanted = np.full(buffer.shape, np.pi, np.longdouble)
        wanted[:, 1:, 1:-1] = views[order](given).astype(np.longdouble) @ matrix
        bound = 20 * np.finfo(dtype).eps * np.abs(wanted).max()
        np.testing.assert_allclose(buffer, wanted.astype(dtype), rtol=0, atol=bound)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("tile", [None, (1, 1), (1, 2), (2, 2)], ids=str)
@pytest.mark.parametrize("batch", [2, 3, 5, 7])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_parts_solve_the_dense_system(
    kind: dict[str, Any], batch: int, tile: tuple[int, int] | None
) -> None:
    conv = ic.AutoregressiveConv.init(3, rng=RNG, **kind)
    matrix, _ = oracle.affine(conv, (6, 8))
    prepared = conv.asarrays(torch.zeros(0, dtype=torch.float64)).prepare((6, 8), tile=tile)
    for _ in range(3):  # other images, in the same buffer
        y = RNG.standard_normal((batch, 3, 6, 8))
        wanted = np.linalg.solve(matrix, y.reshape(batch, -1).T).T.reshape(y.shape)
        x = prepared.inverse(torch.as_tensor(y))
        np.testing.assert_allclose(x.numpy(), wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    if tile == (1, 1) and kind["kernel_size"] == 2:
        parts = math.ceil(batch / math.ceil(batch / 3))
        assert prepared.plan["parts"] == {(batch, 3, 6, 8): parts}
        kept = [w for w in in_memory.IN_MEMORY._kept._kept.values() if len(w.parts) == parts]
        assert any(isinstance(call, team.Program) for work in kept for call in work.calls)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("tile", [(1, 1), (2, 2), (1, 4)])
def test_the_laws_hold_in_parts(tile: tuple[int, int], hold_the_laws: Callable[..., None]) -> None:
    with tiles.tile_by_hand(tile):
        hold_the_laws("torch", ("float64", "float32"))


@pytest.mark.usefixtures("no_llvmlite")
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_laws_hold_without_llvmlite(library: str, hold_the_laws: Callable[..., None]) -> None:
    for kept in (in_memory.IN_MEMORY._kept, STRIDED._kept):
        kept._kept.clear()
    hold_the_laws(library, ("float64", "float32"))


@pytest.mark.usefixtures("three_threads")
def test_parts_read_images_however_they_lie() -> None:
    conv = ic.AutoregressiveConv.init(12, rng=RNG, like=torch.zeros(0, dtype=torch.float64))
    prepared = conv.prepare((6, 8))
    large = torch.as_tensor(RNG.standard_normal((9, 24, 12, 16)))
    views = {
        "as they are": large[:5, :12, :6, :8].contiguous(),
        "channels last": large[:5, :12, :6, :8].contiguous(memory_format=torch.channels_last),
        "of larger ones": large[:5, 3:15, 2:8, 4:12],
        "every other one": large[::2, ::2, ::2, ::2],
        "one image": large[:1, :12, :6, :8].expand(5, -1, -1, -1),
        "rows for columns": large[:5, :12, :8, :6].transpose(2, 3),
    }
    for name, y in [*views.items(), *views.items()]:
        wanted = conv.asarrays(np.zeros(0)).inverse(y.numpy())
        np.testing.assert_allclose(prepared.inverse(y).numpy(), wanted, rtol=0, atol=1e-12)
        assert y.shape == (5, 12, 6, 8), name


@pytest.mark.usefixtures("three_threads")
def test_parts_do_not_keep_the_images() -> None:
    conv = ic.AutoregressiveConv.init(12, rng=RNG, like=torch.zeros(0))
    prepared = conv.prepare((6, 9))
    y = torch.zeros(5, 12, 6, 9)
    images = weakref.ref(y)
    prepared.inverse(y)
    assert prepared.plan["parts"]
    del y
    gc.collect()
    assert images() is None


@pytest.mark.usefixtures("three_threads")
def test_parts_keep_a_bad_sample_to_itself() -> None:
    conv = ic.AutoregressiveConv.init(12, rng=RNG, like=torch.zeros(0))
    prepared = conv.prepare((6, 8))
    y = torch.as_tensor(RNG.standard_normal((5, 12, 6, 8)), dtype=torch.float32)
    wanted = prepared.inverse(y)
    bad = y.clone()
    bad[1, 3, 2, 2] = torch.nan
    found = prepared.inverse(bad)
    others = [0, 2, 3, 4]
    assert torch.equal(found[others], wanted[others])
    assert found[1].isnan().any()
    assert torch.equal(prepared.inverse(y), wanted)


def test_small_batches_and_one_thread_are_not_shared_out() -> None:
    before = torch.get_num_threads()
    conv = ic.AutoregressiveConv.init(12, rng=RNG, like=torch.zeros(0))
    try:
        for threads, batch, parts in ((1, 64, {}), (2, 2, {}), (2, 64, {(64, 12, 8, 8): 2})):
            torch.set_num_threads(threads)
            prepared = conv.prepare((8, 8))
            prepared.inverse(torch.zeros(batch, 12, 8, 8))
            assert prepared.plan["parts"] == parts
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_threads_are_as_many_as_torch_is_to_use_at_the_time() -> None:
    conv = ic.AutoregressiveConv.init(12, rng=RNG, like=torch.zeros(0))
    prepared = conv.prepare((6, 10))
    y = torch.zeros(2, 12, 6, 10)
    programs = []
    for threads in (3, 2, 4):
        torch.set_num_threads(threads)
        prepared.inverse(y)
        kept = in_memory.IN_MEMORY._kept._kept.values()
        programs += [w.reads for w in kept if w.parts[0].given.shape == (1, 6, 1, 10, 1, 12)]
        assert programs[-1]._threads.value == threads
    assert len(set(map(id, programs))) == 1
    torch.set_num_threads(1)
    prepared.inverse(y)
    assert prepared.plan["parts"] == {(2, 12, 6, 10): 1}


@pytest.mark.usefixtures("three_threads")
def test_what_blas_would_share_out_itself_is_not_in_parts() -> None:
    conv = ic.AutoregressiveConv.init(96, 3, rng=RNG, like=torch.zeros(0))
    prepared = conv.prepare((8, 8))
    y = torch.as_tensor(RNG.standard_normal((4, 96, 8, 8)), dtype=torch.float32)
    x = prepared.inverse(y)
    assert not prepared.plan["parts"]
    wanted = conv.asarrays(np.zeros(0)).inverse(y.numpy().astype(float))
    np.testing.assert_allclose(x.numpy(), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.usefixtures("three_threads")
def test_addresses_are_counted_and_take_less_memory_than_images() -> None:
    for shape in ((64, 1, 32, 11), (64, 12, 32, 11)):
        conv = ic.AutoregressiveConv.init(shape[1], rng=RNG, like=torch.zeros(0))
        in_memory.IN_MEMORY._kept._kept.clear()
        conv.prepare(shape[2:], tile=(1, 1)).inverse(torch.zeros(shape))
        (work,) = in_memory.IN_MEMORY._kept._kept.values()
        (program,) = work.calls
        assert work.nbytes > program.nbytes + sum(part.given.nbytes for part in work.parts)
        assert (work.reads is program) == (shape[1] > 1)
        waves = sum(part.count for part in work.parts)
        rows = 0 if work.reads is None else shape[0] * shape[2]
        assert program.nbytes == replay.STEP_BYTES * (waves + rows)
        assert program.nbytes < 4 * math.prod(shape) + replay.STEP_BYTES * waves


@pytest.mark.usefixtures("three_threads", "no_llvmlite")
def test_nothing_is_shared_out_without_llvmlite() -> None:
    assert in_memory.parts(torch.zeros(64, 12, 8, 8)) == 1


@pytest.mark.parametrize("error", [RuntimeError, OSError, ImportError])
def test_a_compiler_that_fails_is_done_without(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(code: str) -> None:
        raise error("LLVM IR parsing error")

    monkeypatch.setattr(llvmlite.binding, "parse_assembly", fail)
    replay.loops.cache_clear()
    try:
        assert replay.loops() is None
    finally:
        replay.loops.cache_clear()


def test_a_system_that_forbids_new_code_is_done_without() -> None:
    code = """
        import ctypes, sys
        import numpy as np
        import invconv
        from invconv.replay import loops
        pr_set_mdwe, refuse_exec_gain = 65, 1
        if ctypes.CDLL(None).prctl(pr_set_mdwe, refuse_exec_gain, 0, 0, 0):
            sys.exit("not known here")
        conv = invconv.AutoregressiveConv.init(3, rng=np.random.default_rng(0))
        x = np.ones((2, 3, 6, 6))
        assert np.allclose(conv.inverse(conv.forward(x)), x)
        print(loops())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    if "not known here" in done.stderr or sys.platform != "linux":
        pytest.skip("no memory-deny-write-execute here")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
