"""The training guard: it names the layer before its inverse is lost, within its budget."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax as ij
import invconv_torch as it
from invconv.operators.base.judgement import Judgement
from invconv.stability.guard import Guard


class Flow(torch.nn.Module):  # type: ignore[misc]
    """Two levels, so two grids."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.ModuleList([it.ActNorm(3), it.AutoregressiveConv2d(3)])
        self.coarse = it.EmergingConv2d(12, mixing="qr")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last level's output."""
        for layer in self.fine:
            x, _ = layer(x)
        z: torch.Tensor = self.coarse(torch.pixel_unshuffle(x, 2))[0]
        return z


def test_it_names_the_layer_before_the_inverse_is_lost() -> None:
    torch.manual_seed(0)
    flow, x = Flow(), torch.randn(2, 3, 16, 16)
    guard = it.ConditionGuard(flow, budget=1.0)
    weak = flow.fine[1]
    for _ in range(6):
        flow(x)
        assert guard.step() is not None
    assert set(guard._guard.known) == {"fine.0", "fine.1", "coarse"}
    assert guard._guard.known["coarse"].spatial_shape == (8, 8)
    for _ in range(200):  # a training that pulls the taps away from the pixel's own matrix
        with torch.no_grad():
            weak.kernel[:, :, 0, 1] -= 0.02 * torch.eye(3)
            weak.kernel[:, :, 1, 0] -= 0.02 * torch.eye(3)
        flow(x)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            guard.step()
        if heard:
            break
    (warning,) = heard
    assert warning.category is ic.IllConditionedWarning
    assert str(warning.message).startswith("the inverse of fine.1 (AutoregressiveConv) is off by")
    assert warning.filename == __file__
    assert guard.worst is not None
    assert guard.worst.name == "fine.1"
    with torch.no_grad():
        z, _ = weak(x)
        back, _ = weak.inverse(z)
    assert 1e-6 < (back - x).abs().max() < 0.05  # digits are lost, the inverse is not yet
    guard.remove()
    stingy = it.ConditionGuard(flow, budget=1e-9)
    flow(torch.randn(2, 3, 8, 8))
    assert stingy.step() is not None  # has looked at one
    all_of_them = stingy.look_at_all()
    assert all_of_them is not None
    assert all_of_them.name == "fine.1"
    assert guard._shapes["coarse"] == (2, 12, 8, 8)


def test_it_warns_once_until_the_layer_recovers() -> None:
    turned = np.asarray([[0.8, -0.6], [0.6, 0.8]])
    good, bad = (ic.Conv1x1(turned @ np.diag([1.0, s]) @ turned.T) for s in (1.0, 1e-14))
    guard = Guard(budget=1.0)

    def looks(conv: ic.InvertibleConv) -> int:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            guard.step(lambda: {"norm": (conv, (4,))})
        return len(heard)

    assert [looks(conv) for conv in (good, bad, bad, good, bad)] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("budget", [0.01, 0.1])
@pytest.mark.parametrize("costs", [(0.3,) * 5, (0.9, 0.01, 0.02, 0.01, 0.3)], ids=["same", "other"])
def test_it_keeps_its_budget(
    costs: tuple[float, ...], budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = 0.0, 0

    def look(conv: ic.InvertibleConv, *_: object) -> Judgement:
        nonlocal now, looks
        now, looks = now + costs[conv.channels - 1], looks + 1
        return Judgement(1e-6, "measured", "by nothing")

    monkeypatch.setattr("invconv.operators.base.judgement.judge", look)
    layers = {f"{i}": (ic.ActNorm.init(i + 1), (4,)) for i in range(5)}
    guard, asked = Guard(budget=budget, clock=lambda: now), 0

    def operators() -> dict[str, tuple[ic.InvertibleConv, tuple[int, ...]]]:
        nonlocal asked
        asked += 1
        return dict(layers)

    for _ in range(10_000):
        now += 0.05  # a training step
        guard.step(operators)
        assert guard.seconds <= max(costs[0], budget * now)  # the first look always
    assert guard.seconds > budget * now - 2 * max(costs)
    assert asked == looks
    assert len(guard.known) == 5


def test_jax_names_the_step_of_a_chain() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    good, bad = (ij.init(key, ic.AutoregressiveConv, 2, dtype="float32") for key in keys)
    bad = bad.replace(
        kernel=bad.kernel.at[:, :, 0, 1].set(-3.0 * jax.numpy.eye(2, dtype="float32"))
    )
    flow = {"scale": ic.Chain([good, bad]), "other": jax.numpy.zeros(3)}
    guard = ij.ConditionGuard(lambda name: (6, 14), budget=1.0)
    guard.step(flow)
    with pytest.warns(
        ic.IllConditionedWarning, match=r"\['scale'\].steps\[1\].* on a grid of 6 x 14"
    ):
        guard.step(flow)
    assert guard.worst is not None
    assert guard.worst.name == "['scale'].steps[1]"


def wrong(value: Any) -> Any:
    """Return what type checkers would refuse."""
    return value


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ij.ConditionGuard((4,), budget=0), ValueError, "budget: expected a share above 0"),
        (lambda: ij.ConditionGuard((4,), budget=wrong("1 %")), ValueError, "budget: .* got '1 %'"),
        (
            lambda: ij.ConditionGuard((4,), digits=-1),
            ValueError,
            "digits: expected a number from 0",
        ),
        (lambda: ij.ConditionGuard((4,), digits=np.nan), ValueError, "digits: expected a number"),
        (lambda: ij.ConditionGuard((4,)).step({"a": 1}), ValueError, "flow: expected a pytree"),
        (
            lambda: ij.ConditionGuard(wrong(None)).step(ic.ActNorm.init(2)),
            TypeError,
            "spatial_shape: exp",
        ),
        (
            lambda: jax.jit(ij.ConditionGuard((4,)).step)(ic.ActNorm(jax.numpy.ones(2), None)),
            TypeError,
            "flow: expected values, got a traced ActNorm.log_scale; call this outside jit",
        ),
        (
            lambda: it.ConditionGuard(ic.ActNorm.init(2)),
            TypeError,
            "model: expected a torch.nn.Mod",
        ),
        (lambda: it.ConditionGuard(torch.nn.Linear(2, 2)), ValueError, "got Linear without any"),
        (
            lambda: it.ConditionGuard(it.ActNorm(2), digits=wrong("3")),
            ValueError,
            "digits: .* got '3'",
        ),
    ],
)
def test_what_cannot_be_guarded_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_it_follows_a_compiled_model() -> None:
    """Without a graph break, and with the grids of each call."""
    flow = torch.nn.Sequential(it.EmergingConv2d(3))
    guard = it.ConditionGuard(flow, budget=1.0)
    run = torch.compile(flow, fullgraph=True, backend="eager")
    for n in (8, 9, 12):
        run(torch.zeros(1, 3, n, 7))
        found = guard.step()
        assert found is not None
        assert found.spatial_shape == (n, 7)


def test_a_watched_model_can_be_pickled_and_copied() -> None:
    model = torch.nn.Sequential(it.EmergingConv2d(3))
    guard = it.ConditionGuard(model)
    again = pickle.loads(pickle.dumps(model))
    average = copy.deepcopy(model)
    x = torch.randn(1, 3, 8, 8)
    for other in (again, average):
        torch.testing.assert_close(other(x), model(x))
    found = guard.step()
    assert found is not None
    assert found.spatial_shape == (8, 8)
