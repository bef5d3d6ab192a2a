"""One prepared inverse in many threads: each gets what it would have got alone, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv.arrays.namespaces import to_numpy

GRID = (12, 12)
LIKE: dict[str, Any] = {"numpy": np.empty(0, np.float32), "torch": torch.empty(0)}


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


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_a_solve_within_a_solve(method: str, batch: int, library: str) -> None:
    """As a signal's handler or a destructor may begin one, with the same buffers."""
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(3, 2, rng=rng).asarrays(LIKE[library])
    a, b = rng.standard_normal((2, batch, 3, 4, 4)).astype(np.float32)
    carry = {"numpy": np.asarray, "torch": torch.as_tensor}[library]
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
    first, second = (
        ic.AutoregressiveConv.init(3, 2, rng=rng).prepare((4, 4), check=False) for _ in range(2)
    )
    y = rng.standard_normal((batch, 3, 4, 4))
    wanted = first.inverse(y)
    lines: list[int] = []
    _at_every_line(lambda: second.inverse(y), lines.append)
    assert len(lines) > 50
    for last in lines:

        def interrupt(line: int, last: int = last) -> None:
            if line == last:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            _at_every_line(lambda: second.inverse(y), interrupt)
        assert np.array_equal(first.inverse(y), wanted), last


@pytest.mark.parametrize("kind", [ic.AutoregressiveConv, ic.PeriodicConv])
def test_a_copy_while_another_thread_solves(kind: Any) -> None:
    """The first solve notes what it finds out of the operator, which is being copied."""
    rng = np.random.default_rng(0)
    conv, y = kind.init(4, 2, rng=rng), rng.standard_normal((1, 4, *GRID))
    wanted, lines = conv.inverse(y), [0]
    for last in itertools.count(0, 5):
        prepared = conv.replace().prepare(GRID, check=False)
        lines.clear()

        def at(line: int, last: int = last, prepared: Any = prepared) -> None:
            lines.append(line)
            if line == last:
                prepared.inverse(y)

        copied = _at_every_line(lambda p=prepared: copy.deepcopy(p), at)  # type: ignore[misc]
        assert np.array_equal(copied.inverse(y), wanted)
        if last >= len(lines):
            break
    assert last > 50


def test_a_layer_solves_on_many_grids_while_it_looks_for_one() -> None:
    """Wherever another thread may come between: the inverse that it looks for is dropped."""
    layer = it.Conv1x1(2).eval()
    y, *others = (torch.randn(1, 2, n) for n in range(2, 8))
    with torch.no_grad():
        wanted = layer.inverse(y)[0]

        def within(line: int) -> None:
            for other in others:
                layer.inverse(other)

        found = _at_every_line(lambda: layer.inverse(y)[0], within)
    assert torch.equal(found, wanted)
