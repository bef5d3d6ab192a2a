"""The training guard: it names each layer that goes bad, in the layer's turn."""

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax as ij
import invconv_torch as it
from invconv.operators.base import judgement
from tests.selected import turned

GRID = (4, 8)


def chain(like: Any) -> ic.Chain:
    rng = np.random.default_rng(0)
    return ic.Chain([ic.AutoregressiveConv.init(2, rng=rng) for _ in range(3)]).asarrays(like)


def on_jax(dtype: str = "float32") -> ic.Chain:
    return chain(jax.numpy.empty(0, dtype))


def layers(dtype: torch.dtype = torch.float32) -> list[torch.nn.Module]:
    return [it.InvertibleModule(step) for step in chain(torch.empty(0, dtype=dtype)).steps]


def flow(_: Any = None) -> it.flows.Glow:
    return it.flows.Glow((2, *GRID), levels=2, depth=1, width=4, mixing="emerging")


def flow_of_jax(folder: Path) -> Any:
    it.save(flow(), folder / "flow.safetensors")
    return ij.load(folder / "flow.safetensors")


class Row(NamedTuple):
    """A model, the grid that the guard is told, and a layer that goes bad."""

    library: Any
    make: Callable[[Path], Any]
    told: Any
    name: str  # of the layer
    kernel: str = "kernel"  # of the layer
    shape: tuple[int, ...] = GRID  # of the layer's images
    layers: int = 3  # of the model


MIXING = ".levels[0].steps[0].mixing.steps[2]"
grid_of: Any = lambda name: (2, 4) if "levels[0]" in name else None  # noqa: E731
ROWS = {
    "torch": Row(it, lambda _: torch.nn.Sequential(*layers()), None, "2"),
    "torch-half": Row(it, lambda _: torch.nn.Sequential(*layers(torch.bfloat16)), GRID, "1"),
    "torch-reversible": Row(it, lambda _: it.ReversibleChain(layers()), None, "0"),
    "torch-flow": Row(it, flow, None, "layers.level0_step0_mixing", "first.kernel", (2, 4), 4),
    "torch-conv": Row(it, lambda _: chain(torch.empty(0)), GRID, ".steps[1]"),
    "jax": Row(ij, lambda _: {"a": on_jax(), "b": 1}, GRID, "['a'].steps[2]"),
    "jax-half": Row(ij, lambda _: list(on_jax("float16").steps), GRID, "[1]"),
    "jax-reversible": Row(ij, lambda _: ij.reversible(on_jax(), GRID), GRID, ".chain.steps[0]"),
    "jax-flow": Row(ij, flow_of_jax, grid_of, MIXING, "first.kernel", (2, 4)),
}


def trained(row: Row, model: Any, tap: float) -> Any:
    def change(path: Any, leaf: Any) -> Any:
        if jax.tree_util.keystr(path) != f"{row.name}.{row.kernel}":
            return leaf
        return leaf.at[:, :, 0, 1].set(tap * jax.numpy.eye(leaf.shape[0], dtype=leaf.dtype))

    if row.library is ij:
        return jax.tree_util.tree_map_with_path(change, model)
    if isinstance(model, ic.Chain):
        kernel = model.parameters()["1.kernel"]
    else:
        kernel = model.get_parameter(f"{row.name}.{row.kernel}")
    with torch.no_grad():
        kernel[:, :, 0, 1] = tap * torch.eye(len(kernel))
    return model


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_layer_that_goes_bad_is_named(row: Row, tmp_path: Path, monkeypatch: Any) -> None:
    model, judge = row.make(tmp_path), Mock(wraps=judgement.judge)
    monkeypatch.setattr(judgement, "judge", judge)
    guard = row.library.InverseGuard(model, row.told, every=2)
    if row.told is None:
        for run in model if isinstance(model, torch.nn.Sequential) else [model]:
            run(torch.rand(3, 2, *GRID))
    for _ in range(2):
        assert guard.step(model).digits > 3
        assert judge.call_count == 1  # the first call judges one layer, the second none
    for tap, warns in ((-300.0, True), (-300.0, False), (0.0, False), (-300.0, True)):
        model = trained(row, model, tap)
        judge.reset_mock()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2 * row.layers):
                worst = guard.step(model)
        assert judge.call_count == len(guard.known) == row.layers
        assert (worst.digits < 3) == bool(tap)
        assert len(caught) == warns
        for warning in caught:
            assert str(warning.message).startswith(f"the inverse of {row.name} (")
            assert "digits are left in float32" in str(warning.message)
            assert warning.category is ic.IllConditionedWarning
            assert warning.filename == __file__
        assert not tap or (worst.name, worst.spatial_shape) == (row.name, row.shape)


def test_frequencies_of_tensors_edited_in_place_are_not_remembered() -> None:
    conv = ic.PeriodicConv.init(2, 9, rng=np.random.default_rng(0)).asarrays(torch.empty(0))
    guard = it.InverseGuard(conv, (300, 300), every=1)
    assert guard.step(conv).digits > 5
    conv.kernel[:] = torch.full((2, 2, 1, 1), 1e-4) * conv.kernel[:, :1]
    with pytest.warns(ic.IllConditionedWarning, match="the inverse of PeriodicConv "):
        guard.step(conv)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_it_follows_copies_and_modules_around_a_model() -> None:
    """Without a graph break, and with the grid of each call; a layer that never ran is left out."""
    runs = torch.nn.Sequential(it.EmergingConv2d(3))
    model = torch.nn.ModuleDict({"runs": runs, "never": it.ActNorm(3)})
    guard = it.InverseGuard(model, every=1)
    run = torch.compile(runs, fullgraph=True, backend="eager")
    for n in (8, 9, 12):
        run(torch.zeros(1, 3, n, 7))
        for followed in (model, run, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert guard.step(followed).spatial_shape == (n, 7)
    runs[0](x=torch.zeros(1, 3, 5, 6))
    assert guard.step(model).spatial_shape == (5, 6)
    model["later"] = it.ActNorm(3)
    for known in ({"runs.0"}, {"runs.0"}, {"runs.0", "later"}):  # seen, run, judged
        runs[0].inverse(torch.zeros(1, 3, 4, 6))
        assert guard.step(model).spatial_shape == (4, 6)
        assert set(guard.known) == known
        model["later"].inverse(torch.zeros(1, 3, 4, 6))


def test_it_forgets_layers_that_are_gone() -> None:
    bad, good = (turned(1.0, c, dtype=float) for c in (1e-15, 1.0))
    guard = it.InverseGuard(chain := ic.Chain([good, bad]), (4, 4), digits=0, every=1)
    lost, kept = [guard.step(c).digits for c in (chain, chain, ic.Chain([good]))][1:]
    assert lost < 2 < kept


def test_a_matrix_for_vectors_is_judged() -> None:
    near = ic.Conv1x1(np.asarray([[1, 1], [1, 1 + 2e-6]], np.float32), ndim=0)
    with pytest.warns(ic.IllConditionedWarning, match="Conv1x1 on a grid of 1 is off"):
        near.inverse(np.ones((5, 2), np.float32))
    assert ic.diagnose(near, ()).condition == pytest.approx(np.linalg.cond(near.weight), rel=1e-4)
    layer = it.InvertibleModule(near)
    guard = it.InverseGuard(layer)
    layer(torch.ones(5, 2))
    with pytest.warns(ic.IllConditionedWarning):
        assert guard.step(layer).spatial_shape == ()
