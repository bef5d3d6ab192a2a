"""The compiled kernel and threads: beside others, after a fork, interrupted, copied, bounded."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.cpu import compiled, costs, threads
from tests.programs import python

GRID = (40, 300)
LIKE: dict[str, Any] = {"numpy": np.empty(0, np.float32), "torch": torch.empty(0)}
CARRY: dict[str, Callable[[Any], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor}

libraries = pytest.mark.parametrize("library", LIKE)
processes = pytest.mark.parametrize(  # PyTorch's import takes seconds
    "library", ["numpy", pytest.param("torch", marks=pytest.mark.slow)]
)


@pytest.fixture
def shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let two threads share a solve of any size."""
    monkeypatch.setattr(costs, "SHARED", 0.0)
    compiled._runs.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    ic.set_num_threads(2)
    yield
    ic.set_num_threads(1)
    torch.set_num_threads(before)
    compiled._runs.cache_clear()


def prepared(library: str) -> ic.PreparedInverse:
    """Return the inverse of a pair, whose rows and images threads share."""
    conv = ic.EmergingConv.init(3, rng=np.random.default_rng(0)).asarrays(LIKE[library])
    return conv.prepare(GRID, check=False)


def images(library: str, count: int) -> list[Any]:
    """Return batches of one image, of few, and of more than a vector holds."""
    rng = np.random.default_rng(1)
    shapes = [(b, 3, *GRID) for b in (1, 2, 17)]
    found = [rng.standard_normal(shapes[i % 3]).astype(np.float32) for i in range(count)]
    return [CARRY[library](y) for y in found]


def alone(made: ic.PreparedInverse, batches: list[Any]) -> list[Any]:
    """Return what one thread gives, image by image."""
    return [
        np.concatenate([to_numpy(made.inverse(y[i : i + 1])) for i in range(len(y))])
        for y in batches
    ]


@libraries
@pytest.mark.usefixtures("shared_out")
def test_sixteen_threads_that_each_have_two(library: str) -> None:
    made, batches = prepared(library), images(library, 6)
    wanted = alone(made, batches)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda y: to_numpy(made.inverse(y)), batches * 8))
    for i, x in enumerate(found):
        assert np.array_equal(x, wanted[i % len(batches)]), i
    assert threads._pool is not None


def test_threads_that_solve_first_at_the_same_time() -> None:
    """Each would compute weights, and free those whose address another one knows."""
    y = np.random.default_rng(0).standard_normal((2, 24, 6, 6)).astype("float32")
    conv = ic.AutoregressiveConv.init(24, rng=np.random.default_rng(0), like=y)
    wanted, before = conv.inverse(y), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(150):
                start, solve = Barrier(8), conv.prepare((6, 6), check=False).inverse

                def run(_: int, start: Barrier = start, solve: Any = solve) -> bool:
                    start.wait()
                    solve(y)
                    overwritten = [np.full(40_000, np.nan, "float32") for _ in range(4)]
                    del overwritten
                    return np.array_equal(solve(y), wanted)

                assert all(pool.map(run, range(8)))
    finally:
        sys.setswitchinterval(before)


@libraries
@pytest.mark.usefixtures("shared_out")
def test_interrupted_while_threads_solve(library: str) -> None:
    """Whenever the interrupt comes, the next solve is right, and the threads still come."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    made, batches = prepared(library), images(library, 3)
    wanted, count = alone(made, batches), 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(150):
            y, x = batches[i % 3], wanted[i % 3]
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + i))
                made.inverse(y)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                count += 1
            assert np.array_equal(to_numpy(made.inverse(y)), x), i
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count > 20
    assert all(thread.is_alive() for thread in threads._threads()._threads)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@processes
def test_a_child_of_fork_solves_with_threads_of_its_own(library: str) -> None:
    """In the child none of its parent's threads is there."""
    code = """
        import os, signal, sys, warnings
        import numpy as np
        import invconv
        from invconv.kernels.cpu import costs
        from invconv.kernels.cpu import threads
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        costs.SHARED = 0.0
        invconv.set_num_threads(2)
        y = np.random.default_rng(0).standard_normal((20, 3, 30, 40))
        if "LIBRARY" == "torch":
            import torch
            import invconv_torch
            torch.set_num_threads(2)
            y = torch.as_tensor(y)
        rng = np.random.default_rng(0)
        made = invconv.AutoregressiveConv.init(3, rng=rng, like=y).prepare((30, 40))
        x = np.asarray(made.inverse(y))
        pool = threads._pool
        assert pool is not None
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            same = threads._pool is None and np.array_equal(made.inverse(y), x)
            own = threads._pool is not None and threads._pool is not pool
            sys.stderr.write(f"{same} {own}")
            os._exit(0 if same and own else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert np.array_equal(made.inverse(y), x)
        assert threads._pool is pool
    """
    code = textwrap.dedent(code.replace("LIBRARY", library))
    assert python("-W", "error", "-c", code).stdout == "0\n"
