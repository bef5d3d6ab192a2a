"""Threads and interruptions: solves beside and within others, after a fork, copied, cut off."""

import contextlib
import copy
import gc
import itertools
import signal
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

import invconv as ic
import invconv_torch as it
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.cpu import compiled, costs, threads
from tests.programs import python
from tests.selected import CARRY, processes

GRID = (40, 300)
LIKE: dict[str, Any] = {"numpy": np.empty(0, np.float32), "torch": torch.empty(0)}
libraries = pytest.mark.parametrize("library", LIKE)


@pytest.fixture
def shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    shapes = [((1, 2, 17)[i % 3], 3, *GRID) for i in range(count)]
    return [CARRY[library](rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def alone(made: ic.PreparedInverse, batches: list[Any]) -> list[Any]:
    """Return what one thread gives, image by image."""
    singly = ([to_numpy(made.inverse(y[i : i + 1])) for i in range(len(y))] for y in batches)
    return list(map(np.concatenate, singly))


def test_an_error_of_another_thread_is_raised() -> None:
    here, over = threading.get_ident(), threading.Event()

    def work() -> None:
        if threading.get_ident() != here:
            over.set()
            raise ZeroDivisionError
        assert over.wait(60)
        time.sleep(0.01)  # it has ended by then

    with pytest.raises(ZeroDivisionError):
        threads.together(work, 2)


def test_an_interrupt_that_leaves_a_lock_taken_strands_no_thread(monkeypatch: Any) -> None:
    """The process would wait for the thread at its end."""
    begun = threading.Event()

    def cancel(future: Any) -> None:
        future._condition.acquire()
        begun.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "cancel", cancel)
    monkeypatch.setattr(threads, "_pool", None)
    pool, here = threads._threads(), threading.get_ident()
    with pytest.raises(KeyboardInterrupt):
        threads.together(lambda: here == threading.get_ident() or begun.wait(60), 2)
    pool.shutdown(wait=False)
    (thread,) = pool._threads
    thread.join(30)
    assert not thread.is_alive()


def test_where_no_further_thread_starts_this_one_does_all(monkeypatch: Any) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threads, "_pool", None)
    done: list[int] = []
    threads.together(lambda: done.append(1), 3)
    assert (done, threads._pool) == ([1], None)  # and the work waits in no queue


@libraries
@pytest.mark.usefixtures("shared_out")
@pytest.mark.parametrize("method", ["forward", "inverse", "lfilter"])
def test_threads_that_come_late_find_the_memory(
    method: str, library: str, monkeypatch: Any
) -> None:
    """As after an interrupt, when the caller has let go of it."""
    late: list[Any] = []

    def together(work: Any, _: int) -> None:
        late.append(work)
        work()

    monkeypatch.setattr(threads, "together", together)
    conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0)).asarrays(LIKE[library])
    runs: dict[str, Callable[[Any], Any]] = {
        "forward": conv.forward,
        "inverse": conv.prepare(GRID, check=False).inverse,
        "lfilter": lambda x: ic.lfilter([1.0], [1.0, -0.5], x),
    }

    def run() -> list[Any]:
        given = images(library, 3)[2]
        views = given, runs[method](given)
        owners = [v.base if library == "numpy" else v._base for v in views]
        return [weakref.ref(v if o is None else o) for v, o in zip(views, owners, strict=True)]

    found = run()
    assert late
    assert all(ref() is not None for ref in found)
    late.clear()
    assert all(ref() is None for ref in found)


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
    gc.disable()  # an interrupt in a callback of the collector goes to nobody
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
        gc.enable()
    assert count > 20
    assert all(thread.is_alive() for thread in threads._threads()._threads)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@processes
def test_a_child_of_fork_solves_with_threads_of_its_own(library: str) -> None:
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


def _at_every_line(run: Callable[[], Any], do: Callable[[int], None]) -> Any:
    """Run something, and something else in this thread before each line on its way."""
    lines, outside = itertools.count(), sys.gettrace()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        do(next(lines))  # while nothing is traced
        return trace

    sys.settrace(trace)
    try:
        return run()
    finally:
        sys.settrace(outside)


def _once_at_a_line(every: int, begin: Callable[[], tuple[Any, Callable[[], Any]]]) -> Any:
    """Yield what calls return, before whose line 0, `every`, ... something else is run once."""
    for last in itertools.count(0, every):
        found, lines, (run, other) = None, [0], begin()

        def do(line: int, last: int = last, lines: Any = lines, other: Any = other) -> None:
            lines.append(line)
            if line == last:
                other()

        with contextlib.suppress(KeyboardInterrupt):
            found = _at_every_line(run, do)
        yield found
        if lines[-1] < last:
            return


@libraries
@pytest.mark.usefixtures("shared_out")
@pytest.mark.parametrize("rows", [1, 2, 37, 64])
def test_threads_share_out_signals(library: str, rows: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, 50))
    found = to_numpy(ic.lfilter([0.5, 0.25], [2.0, -1.0, 0.5], CARRY[library](x)))
    wanted = scipy.signal.lfilter([0.5, 0.25], [2.0, -1.0, 0.5], x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


@libraries
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_a_solve_within_a_solve(method: str, batch: int, library: str) -> None:
    """As a signal's handler or a destructor may begin one, with the same buffers."""
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(3, 2, rng=rng).asarrays(LIKE[library])
    a, b = rng.standard_normal((2, batch, 3, 4, 4)).astype(np.float32)
    carry = CARRY[library]
    run = conv.forward if method == "forward" else conv.prepare((4, 4), check=False).inverse
    wanted, count = to_numpy(run(carry(a))), 0

    def within(line: int) -> None:
        nonlocal count
        run(carry(b))
        count += 1

    found = _at_every_line(lambda: run(carry(a)), within)
    assert np.array_equal(to_numpy(found), wanted)
    assert count > 50


# of a generator that is closed by an interrupt
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("batch", [1, 4])
def test_what_was_interrupted_leaves_no_trace(batch: int) -> None:
    """Two operators take turns in one buffer; the second is interrupted wherever it can be."""
    rng = np.random.default_rng(0)
    convs = (ic.AutoregressiveConv.init(3, 2, rng=rng) for _ in range(2))
    first, second = (conv.prepare((4, 4), check=False) for conv in convs)
    y = rng.standard_normal((batch, 3, 4, 4))
    wanted, count = first.inverse(y), 0

    def interrupt() -> None:
        raise KeyboardInterrupt

    for count, _ in enumerate(_once_at_a_line(1, lambda: (lambda: second.inverse(y), interrupt))):
        assert np.array_equal(first.inverse(y), wanted), count
    assert count > 50


@pytest.mark.parametrize("kind", [ic.AutoregressiveConv, ic.PeriodicConv])
def test_a_copy_while_another_thread_solves(kind: Any) -> None:
    """The first solve notes what it finds out of the operator, which is being copied."""
    rng = np.random.default_rng(0)
    conv, y = kind.init(4, 2, rng=rng), rng.standard_normal((1, 4, 12, 12))

    def begin() -> Any:
        prepared = conv.replace().prepare((12, 12), check=False)
        return lambda: copy.deepcopy(prepared), lambda: prepared.inverse(y)

    found = [copied.inverse(y) for copied in _once_at_a_line(5, begin)]
    assert all(np.array_equal(x, conv.inverse(y)) for x in found)
    assert len(found) > 11


@pytest.mark.parametrize("kind", [it.Conv1x1, it.EmergingConv2d])
def test_weights_that_change_while_an_inverse_is_factored_are_not_taken_for_old(kind: Any) -> None:
    """Whenever another thread edits them, the next call solves with those that are there."""
    y, count = torch.randn(1, 2, 4, 4), 0

    def begin() -> Any:
        layer = kind(2).eval()
        return lambda: (layer, layer.inverse(y)), lambda: [w.mul_(2) for w in layer.parameters()]

    with torch.no_grad():
        for layer, _ in _once_at_a_line(60, begin):
            torch.testing.assert_close(layer.inverse(y), layer.train().inverse(y))
            count += 1
    assert count > 9
