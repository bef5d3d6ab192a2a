"""Random damage to files, random calls and random lives of an operator, each by Hypothesis.

``--hypothesis-profile=long`` makes 100,000 examples of each, new ones every time.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import invconv as ic
from invconv.files.description import build, describe
from invconv_torch.flows import Glow
from tests.fuzz import judge
from tests.fuzz.calls import Call, Op
from tests.fuzz.damage import damaged
from tests.fuzz.strategies import calls

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
