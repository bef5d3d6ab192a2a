"""An operator's life in any order: whatever it remembers, it computes as a new one would."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import invconv as ic
from tests.selected import FEW

OPERATORS = {case.name: case.conv() for case in FEW}
FACTORS = st.sampled_from((0.5, 1.25, 2.0))  # exact, and what is regular stays so
GRIDS = st.integers(1, 4)


class Life(RuleBasedStateMachine):
    """Changes, copies, files and calls, each at any time."""

    @initialize(name=st.sampled_from(sorted(OPERATORS)))
    def begin(self, name: str) -> None:
        """Take an operator, and one prepared inverse of it."""
        self.conv: Any = copy.deepcopy(OPERATORS[name])
        self.name, self.kept = name, self.conv.prepare(self.grid(2), check=False)
        self.expected = self.inverse_of(self.fresh(), 2)

    def grid(self, n: int) -> tuple[int, ...]:
        """Return a grid of as many axes as the operator has."""
        return (n,) * (self.conv.ndim or 2)

    def image(self, n: int) -> np.ndarray[Any, Any]:
        """Return two images."""
        return np.random.default_rng(n).standard_normal((2, self.conv.channels, *self.grid(n)))

    def fresh(self) -> Any:
        """Return an operator with the same parameters that has never been called."""
        values = {n: array.copy() for n, array in self.conv.parameters().items()}
        return copy.deepcopy(OPERATORS[self.name]).replace(**values)

    def inverse_of(self, conv: Any, n: int) -> Any:
        """Return the inverse of the images."""
        return conv.prepare(self.grid(n), check=False).inverse(self.image(n))

    @rule(factor=FACTORS)
    def edit_in_place(self, factor: float) -> None:
        """Write into a parameter; the prepared inverse is of the values before."""
        next(iter(self.conv.parameters().values()))[...] *= factor

    @rule(factor=FACTORS)
    def replace(self, factor: float) -> None:
        """Go on with a copy that has another parameter."""
        name, array = next(iter(self.conv.parameters().items()))
        self.conv = self.conv.replace(**{name: factor * array})

    @rule(way=st.sampled_from((copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c)))))
    def duplicate(self, way: Any) -> None:
        """Go on with a copy."""
        self.conv = way(self.conv)

    @rule()
    def save_and_load(self) -> None:
        """Go on with what a file kept."""
        with TemporaryDirectory() as folder:
            ic.save(self.conv, Path(folder) / "conv.safetensors")
            self.conv = ic.load(Path(folder) / "conv.safetensors", like=np.empty(0))

    @rule(n=GRIDS)
    def prepare(self, n: int) -> None:
        """Keep another prepared inverse."""
        self.kept = self.conv.prepare(self.grid(2), check=False)
        self.expected = self.inverse_of(self.fresh(), 2)
        self.conv.condition(self.grid(n))

    @rule(n=GRIDS)
    def call(self, n: int) -> None:
        """Compute on some grid, with the bits of an operator that remembers nothing."""
        x, new = self.image(n), self.fresh()
        for method in ("forward_and_log_det", "inverse_and_log_det"):
            for found, wanted in zip(
                getattr(self.conv, method)(x), getattr(new, method)(x), strict=True
            ):
                assert np.array_equal(found, wanted), method
        assert np.array_equal(self.inverse_of(self.conv, n), self.inverse_of(new, n))

    @invariant()
    def the_prepared_inverse_stays(self) -> None:
        """Nothing that happens changes a prepared inverse."""
        if hasattr(self, "kept"):
            assert np.array_equal(self.kept.inverse(self.image(2)), self.expected)


Life.TestCase.settings = settings(max_examples=30, stateful_step_count=20)
TestLife = Life.TestCase
