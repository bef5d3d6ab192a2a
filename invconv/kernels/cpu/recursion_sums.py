"""The arithmetic of the kernel for signals of one channel, from memory to memory.

The numbers solved last stay in registers, so that a number waits for one product alone.
`invconv.kernels.order` has the order of the sums: the nearest tap is the last.
"""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu.compiler.integers import Int, Value
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.sums import INTEGERS, POINTERS, READ


def write_recursion(w: Writer, near: int) -> None:
    """Write the function "sums": it solves a signal in ``z`` and puts the result in ``out``.

    The last ``near`` taps read the numbers solved last. The signal has ``rows`` numbers, a
    ``row_step`` apart from ``at`` on; ``last_row`` is the farthest that a tap reads back.
    """
    w = w.narrowed(1)
    with (
        w.function("sums", POINTERS, INTEGERS, inside=False, constant=READ) as a,
        w.b.if_else(a["substitute"].is_("!=", 0), likely=False) as (then, otherwise),
    ):
        with then:
            _solve(w, a, near, substitute=True)
        with otherwise:
            _solve(w, a, near, substitute=False)


def _solve(w: Writer, a: dict[str, Any], near: int, *, substitute: bool) -> None:
    step, far = a["row_step"], a["taps"] - near
    weights = [w.load(a["w"], far + i) for i in range(near)]
    first = a["last_row"].least(a["rows"])
    pivot = w.load(a["diagonal"], 0)

    def put(total: Value, here: Int) -> Value:
        x = w.b.fdiv(total, pivot) if substitute else total
        w.store(x, a["out"], here)
        return x

    total = w.variable(w.vector)
    with w.loop(0, first) as t:  # some taps read before the first number
        here = a["at"] + t * step
        _product_with_y(w, a, here, total)
        with w.loop(1, a["taps"]) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            with w.b.if_then(back.is_("<=", t)):
                _add(w, w.load(a["w"], tap), w.load(a["out"], here - back * step), total)
        put(w.b.load(total, typ=w.vector), here)
    solved = [w.variable(w.vector) for _ in range(near)]  # the last one first
    with w.b.if_then(first.is_("<", a["rows"])):
        for i, variable in enumerate(solved):
            w.b.store(w.load(a["out"], a["at"] + (first - i - 1) * step), variable)
    with w.loop(first, a["rows"]) as t:
        here = a["at"] + t * step
        _product_with_y(w, a, here, total)
        with w.loop(1, far) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            _add(w, w.load(a["w"], tap), w.load(a["out"], here - back * step), total)
        known = [w.b.load(variable, typ=w.vector) for variable in solved]
        for weight, x in zip(weights, reversed(known), strict=True):
            _add(w, weight, x, total)
        now = put(w.b.load(total, typ=w.vector), here)
        for variable, x in zip(solved, [now, *known], strict=False):
            w.b.store(x, variable)


def _product_with_y(w: Writer, a: dict[str, Any], here: Int, total: Value) -> None:
    w.b.store(w.zero, total)
    _add(w, w.load(a["w"], 0), w.load(a["z"], here), total)


def _add(w: Writer, weight: Value, x: Value, total: Value) -> None:
    w.b.store(w.fma(weight, x, w.b.load(total, typ=w.vector)), total)
