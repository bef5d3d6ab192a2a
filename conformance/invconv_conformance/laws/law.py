"""Laws, and the measures that they yield."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, to_numpy
from invconv_conformance.cases.calls import Called
from invconv_conformance.cases.table import Case
from invconv_conformance.truth.oracle import EXTENDED

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measure:
    """The error of an output, ``what``, and its bound; ``rules`` are the methods behind it."""

    what: str
    error: float
    bound: float
    rules: str = ""  # the law's, unless given

    @property
    def share(self) -> float:
        """How much of the bound is used up, inf for NaN; over 1 is a failure."""
        share = self.error / self.bound if self.bound else math.inf
        return math.inf if math.isnan(share) else share


Check = Callable[[Any], Iterator[Measure]]  # of a `Setting`


@dataclass(frozen=True)
class Law:
    """A promise to check; `check` yields no measure where there is nothing to check."""

    id: str
    definition: str  # in symbols
    source: str  # where it comes from
    check: Check
    rules: str = ""  # the author's methods that a failure points to
    regular: bool = True  # whether it is about regular operators,
    singular: bool = False  # and about singular ones
    eager: bool = False  # whether it is about eager code only
    functions: bool = False  # whether it is about functions, not operators

    def speaks_of(self, case: Case, mode: str) -> bool:
        """Tell whether it is about a case in a mode."""
        kind = self.singular if case.singular else self.regular
        kind = kind and self.functions == isinstance(case, Called)
        return kind and not (self.eager and mode != "eager")


def law(
    id: str,  # noqa: A002
    source: str = "design",
    rules: str = "",
    **scope: bool,
) -> Callable[[Check], Law]:
    """Turn a check into a law, which its docstring defines."""

    def named(check: Check) -> Law:
        definition = " ".join((check.__doc__ or "").split()).removesuffix(".")
        return Law(id, definition, source, check, rules, **scope)

    return named


def values(array: Array) -> Floats:
    """Return an array's values in extended precision."""
    return to_numpy(array).astype(EXTENDED)


def truth(holds: bool, what: str) -> Measure:
    """Return the measure of a fact."""
    return Measure(what, 0.0 if holds else math.inf, 1.0)


def refuses(
    what: str,
    kind: type[Exception],
    message: str | tuple[str, ...],
    function: Callable[..., Any],
    *arguments: Any,
) -> Measure:
    """Return the measure of a call that raises an error of a kind, with words in its message."""
    words = (message,) if isinstance(message, str) else message
    try:
        function(*arguments)
    except kind as error:
        return truth(all(word in str(error) for word in words), f"{what}: the message")
    return truth(False, f"{what} is taken")


def same(found: Array, wanted: Array, what: str) -> Measure:
    """Return the measure of two arrays having the same bits."""
    return truth(np.array_equal(to_numpy(found), to_numpy(wanted)), what)


def largest(array: Floats) -> float:
    """Return the largest absolute value, 0 of no entries."""
    return float(np.abs(array).max(initial=0))
