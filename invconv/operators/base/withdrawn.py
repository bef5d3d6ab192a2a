"""Arguments that 0.1.0 had and 0.2.0 has not: they are taken until 0.3.0, with a warning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from invconv.arrays.settings import deprecated, natural

P = ParamSpec("P")
R = TypeVar("R")


def prepare_of_0_1(prepare: Callable[P, R]) -> Callable[P, R]:
    """Take ``tile=`` and ``refine=`` of ``prepare``, and do what serves instead."""

    @functools.wraps(prepare)
    def with_old_arguments(*args: P.args, **settings: P.kwargs) -> R:
        if "tile" in settings:
            deprecated("prepare(tile=)", "it has no effect, since no grid is cut into tiles")
            del settings["tile"]
        if "refine" in settings:
            deprecated("prepare(refine=)", 'precision="float64", which is used here, serves better')
            if natural("refine", settings.pop("refine")):
                settings.setdefault("precision", "float64")
        return prepare(*args, **settings)

    return with_old_arguments
