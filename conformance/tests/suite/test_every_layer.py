"""Every operator and layer is in the lists that tests take one of each from."""

from __future__ import annotations

from collections.abc import Iterable

import invconv_torch as it
from invconv.flows.architecture import BEFORE_EMERGING, MIXINGS, POINTWISE
from invconv.operators.base.register import mixings, own_operators
from invconv_torch.layer import Layer
from tests.conftest import TORCH_LAYERS
from tests.selected import ONE_OF_EACH, cases_named


def without(expected: Iterable[str], listed: Iterable[str]) -> set[str]:
    """Return those that a list has forgotten."""
    return set(expected) - set(listed)


def test_every_operator_is_listed() -> None:
    expected = [cls.__name__ for cls in own_operators()]
    listed = [type(case.conv()).__name__ for case in cases_named(*ONE_OF_EACH)]
    assert not without(expected, listed)
    assert without(expected, listed[1:]) == {listed[0]}  # it would be seen


def test_every_mixing_is_listed() -> None:
    assert {*MIXINGS} == {*mixings(), *BEFORE_EMERGING}


def test_every_layer_is_listed() -> None:
    public = {name: getattr(it, name) for name in it.__all__}
    expected = [n for n, cls in public.items() if isinstance(cls, type) and issubclass(cls, Layer)]
    assert len(expected) > 15
    assert not without(expected, (kind for kind, *_ in TORCH_LAYERS.values()))
    matrices = [arguments for kind, arguments, *_ in TORCH_LAYERS.values() if kind == "Conv1x1"]
    assert not without(POINTWISE, ((*arguments, "plain")[1] for arguments in matrices))
