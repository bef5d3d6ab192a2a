"""The arithmetic of the kernel for signals of one channel, from memory to memory.

The numbers solved last stay in registers, so that a number waits for one product alone.
`invconv.kernels.order` has the order of the sums: the nearest tap is the last.
"""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu.compiler.integers import Int, Value
from invconv.kernels.cpu.compiler.ir import Variable, Writer
from invconv.kernels.cpu.sums import READ, SIGNATURE


def write_recursion(w: Writer, near: int) -> None:
    """Write the function "sums": it solves a signal in ``z`` and puts the result in ``out``.

    The last ``near`` taps read the numbers solved last. The signal has ``rows`` numbers, a
    ``row_step`` apart from ``at`` on; ``last_row`` is the farthest that a tap reads back.
    """
    w = w.narrowed(1)
    with (
        w.function("sums", *SIGNATURE, inside=False, constant=READ) as a,
        w.branches(a["substitute"].is_("!=", 0), likely=False) as branches,
    ):
        for substitute in branches:
            _solve(w, a, near, substitute)


def _solve(w: Writer, a: dict[str, Any], near: int, substitute: bool) -> None:
    step, far = a["row_step"], a["taps"] - near
    weights = [w.load(a["w"], far + i) for i in range(near)]
    first = a["last_row"].least(a["rows"])
    pivot = w.load(a["diagonal"], 0)

    def product_with_y(here: Int) -> Variable:
        total = w.new(w.zero)
        total.add_product(w.load(a["w"], 0), w.load(a["z"], here))
        return total

    def put(total: Variable, here: Int) -> Value:
        x = w.b.fdiv(total.value, pivot) if substitute else total.value
        w.store(x, a["out"], here)
        return x

    with w.loop(0, first) as t:  # some taps read before the first number
        here = a["at"] + t * step
        total = product_with_y(here)
        with w.loop(1, a["taps"]) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            with w.b.if_then(back.is_("<=", t)):
                total.add_product(w.load(a["w"], tap), w.load(a["out"], here - back * step))
        put(total, here)
    solved = [w.new(w.zero) for _ in range(near)]  # the last one first
    with w.b.if_then(first.is_("<", a["rows"])):
        for i, variable in enumerate(solved):
            variable.set(w.load(a["out"], a["at"] + (first - i - 1) * step))
    with w.loop(first, a["rows"]) as t:
        here = a["at"] + t * step
        total = product_with_y(here)
        with w.loop(1, far) as tap:
            back = w.entry(a["lists"], tap * 2 + 2)
            total.add_product(w.load(a["w"], tap), w.load(a["out"], here - back * step))
        known = [variable.value for variable in solved]
        for weight, x in zip(weights, reversed(known), strict=True):
            total.add_product(weight, x)
        now = put(total, here)
        for variable, x in zip(solved, [now, *known], strict=False):
            variable.set(x)
