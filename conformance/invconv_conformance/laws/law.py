"""What a law is, and what laws are written with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from invconv.arrays.namespaces import to_numpy
from invconv_conformance.laws.setting import Array, Floats, Measure, Setting
from invconv_conformance.truth.extended import EXTENDED


@dataclass(frozen=True)
class Law:
    """What must hold.

    Attributes
    ----------
    id : str
    definition : str
        In symbols.
    source : str
        Where it comes from.
    check : callable
        Setting to measures; none where there is nothing to check.
    regular, singular : bool
        Which operators it speaks of.
    eager : bool
        Whether it is about what happens outside compiled code only.
    """

    id: str
    definition: str
    source: str
    check: Callable[[Setting], Iterator[Measure]]
    regular: bool = True
    singular: bool = False
    eager: bool = False

    def applies(self, setting: Setting) -> bool:
        """Tell whether the law speaks of a case in a mode."""
        kind = self.singular if setting.case.singular else self.regular
        return kind and not (self.eager and setting.target.mode != "eager")


Check = Callable[[Setting], Iterator[Measure]]


def law(
    id: str,  # noqa: A002
    definition: str,
    source: str = "design",
    **scope: bool,
) -> Callable[[Check], Law]:
    """Turn a check into a law."""
    return lambda check: Law(id, definition, source, check, **scope)


def values(array: Array) -> Floats:
    """Return an array's values in extended precision."""
    return to_numpy(array).astype(EXTENDED)


def truth(holds: bool, what: str) -> Measure:
    """Return the measure of a fact."""
    return Measure(what, 0.0 if holds else math.inf, 1.0)
