"""How many functions of Python a call enters: what it costs however small the arrays are."""

from __future__ import annotations

import gc
import sys

from invconv_benchmarks.measure.contender import Call

_WARM = 5  # calls before the one that is looked at


def python_calls(function: Call) -> int:
    """Return how many functions of Python a warm function of Python enters, itself not counted."""
    for _ in range(_WARM):
        function()
    events: list[str] = []
    profile, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # a collection calls what others have registered
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        function()
    finally:
        sys.setprofile(profile)
        if collects:
            gc.enable()
    return events.count("call") - 1
