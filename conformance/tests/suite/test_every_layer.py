"""Every operator and layer is in the lists that tests take one of each from."""

from __future__ import annotations

import invconv_torch as it
from invconv.flows.architecture import BEFORE_EMERGING, MIXINGS, POINTWISE
from invconv.operators.base.register import mixings, own_operators
from invconv_torch.layer import Layer
from tests.conftest import TORCH_LAYERS
from tests.selected import ONE_OF_EACH, cases_named


def test_every_operator_is_listed() -> None:
    assert {*own_operators()} == {type(case.conv()) for case in cases_named(*ONE_OF_EACH)}


def test_every_mixing_is_listed() -> None:
    assert {*MIXINGS} == {*mixings(), *BEFORE_EMERGING}


def test_every_layer_is_listed() -> None:
    public = [getattr(it, name) for name in it.__all__]
    layers = {c.__name__ for c in public if isinstance(c, type) and issubclass(c, Layer)}
    assert len(layers) > 15
    assert layers <= {kind for kind, *_ in TORCH_LAYERS.values()}
    matrices = [arguments for kind, arguments, *_ in TORCH_LAYERS.values() if kind == "Conv1x1"]
    assert {*POINTWISE} <= {(*arguments, "plain")[1] for arguments in matrices}
