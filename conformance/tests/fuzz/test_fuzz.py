"""Random damage to files, random calls and random lives of an operator, each by Hypothesis.

``--hypothesis-profile=long`` makes 100,000 examples of each, new ones every time.
"""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import invconv as ic
from invconv.files.operator_files import build, describe
from invconv_torch.flows import Glow
from tests.fuzz import judge
from tests.fuzz.damage import damaged
from tests.fuzz.judge import Call, Op
from tests.fuzz.strategies import calls
from tests.selected import FEW

CONV = Op("AutoregressiveConv", (("kernel", np.asarray([[[1.0, 0.1]]])),))


def load(path: Path, like: Any) -> str:
    """Load a file and say how that ended; any other error should not have been raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            conv = ic.load(path, like=like)
        except ic.InvalidFileError as error:
            return "InvalidFileError" if str(path) in str(error) else "no file in the message"
        if isinstance(conv, Glow):
            assert all(tensor.isfinite().all() for tensor in conv.state_dict().values())
            return "a flow"
        repr(conv)
        arrays: dict[str, Any] = {}
        document = json.loads(json.dumps(describe(conv, arrays)))
        assert describe(build(document, arrays, set()), {}) == document
        assert all(np.isfinite(a).all() for a in arrays.values()), "NaN or inf came through"
    return "an operator"


@pytest.mark.parametrize(("kind", "like"), [("operator", np.empty(0)), ("flow", torch.empty(0))])
def test_damaged_files_are_refused_or_read(kind: str, like: Any, tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    path = tmp_path / "damaged.safetensors"

    # of a seed: how deep JSON may nest, and so what is drawn, depends on the stack
    @given(st.randoms(use_true_random=True))
    def one(rng: Random) -> None:
        path.write_bytes(damaged(rng, kind))
        ends[load(path, like)] += 1

    one()
    (good,) = set(ends) - {"InvalidFileError"}
    assert kind in good
    assert ends.total() / 100 <= ends[good] < ends.total() / 2


def test_random_calls_end_as_documented() -> None:
    ends: Counter[str] = Counter()

    @given(calls())
    def one(call: Call) -> None:
        ends[judge.judge(call)] += 1

    one()
    assert {"a result", "ValueError", "TypeError", "SingularConvError"} <= set(ends)
    assert ends["a result"] >= ends.total() / 4


def test_a_call_that_is_not_documented_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(CONV, "forward", (("x", np.ones((2, 1, 5))),))
    assert judge.judge(call) == "a result"
    for wrong, told in (
        (lambda conv, x: 1 / 0, "ZeroDivisionError"),
        (lambda conv, x: np.linalg.inv(np.zeros((2, 2))), "LinAlgError"),
        (lambda conv, x: np.zeros(3) @ np.zeros(2), "ValueError: matmul"),
        (lambda conv, x: np.nan * x, "silence"),
    ):
        monkeypatch.setattr(ic.AutoregressiveConv, "forward", wrong)
        if told == "silence":  # the reference must not share the fault
            monkeypatch.setattr(judge, "changed", lambda call, change: Call("invconv", "x", ()))
        with pytest.raises(judge.Undocumented, match=told):
            judge.judge(call)


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
