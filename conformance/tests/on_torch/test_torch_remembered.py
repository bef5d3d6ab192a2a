"""An inverse in eval mode is factored once, and never stale."""

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import prune

import invconv_torch as it
from invconv.operators.base.operator import InvertibleConv
from invconv_torch import remembered
from invconv_torch.remembered import Kept
from tests.conftest import Method


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets an entry whenever an operator, or a step of one, is factored."""
    calls: list[str] = []
    factor = InvertibleConv._factor

    def counted(conv: Any, *arguments: Any) -> Any:
        calls.append(type(conv).__name__)
        return factor(conv, *arguments)

    monkeypatch.setattr(InvertibleConv, "_factor", counted)
    return calls


def test_factored_once(layer_name: str, torch_layer: Any, factored: list[str]) -> None:
    layer, x = torch_layer(layer_name)
    expected = layer.inverse(x)
    factored.clear()
    with torch.inference_mode():
        layer.eval().inverse(x)
    once = list(factored)
    assert once
    got = layer.inverse(x)
    with torch.no_grad():
        layer.inverse(x)
    assert factored == once
    sum(part.sum() for part in layer.inverse(x.clone().requires_grad_())).backward()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    layer.train().inverse(x)
    layer.eval().inverse(x)
    assert factored == 3 * once


@pytest.mark.parametrize("buffer", ["permutation", "sign"])
@pytest.mark.parametrize("edit", ["copy_", ".data", "a NumPy view"])
def test_never_stale_where_a_buffer_has_changed(edit: str, buffer: str) -> None:
    """Parameters are the law "updates"."""
    layer, x = it.Conv1x1(4, "plu", dtype=torch.float64).eval(), torch.randn(2, 4, 3, 5).double()
    old = getattr(layer, buffer)
    new = old.roll(1) if buffer == "permutation" else -old
    with torch.no_grad():
        before = layer.inverse(x)[0]
        edited = {"copy_": old, ".data": old.data, "a NumPy view": torch.from_numpy(old.numpy())}
        edited[edit].copy_(new)
        found = layer.inverse(x)[0]
        assert not torch.allclose(found, before)
        torch.testing.assert_close(layer(found)[0], x)
    torch.testing.assert_close(layer.inverse(x)[0], found)  # where gradients are recorded


def test_casts_and_functional_calls_are_seen() -> None:
    layer, x = it.EmergingConv2d(3, mixing="qr").eval(), torch.randn(2, 3, 5, 4)
    layer.inverse(x)
    assert layer.double().inverse(x.double())[0].dtype == torch.float64
    other = {n: 1.1 * p for n, p in layer.state_dict().items()}
    given = {f"layer.{n}": t for n, t in other.items()}
    got = functional_call(Method(layer, "inverse"), given, x.double())
    fresh = it.EmergingConv2d(3, mixing="qr", dtype=torch.float64)
    fresh.load_state_dict(other)
    torch.testing.assert_close(got, fresh.inverse(x.double()))


def test_versions_decide_off_the_cpu() -> None:
    """Identity, version and memory, as on an accelerator; edits through .data pass unseen."""
    layer = it.Conv1x1(3, device="meta")
    tensors = [layer.weight]
    kept = Kept.of(lambda: layer.operator().prepare((2, 2), check=False), tensors)
    assert kept.holds(tensors)
    layer.weight.data.mul_(2)
    assert kept.holds(tensors)  # the documented limit
    with torch.no_grad():
        layer.weight.mul_(2)
    assert not kept.holds(tensors)


def test_several_grids_are_kept() -> None:
    layer = it.PeriodicConv2d(2, max_gain=9.0, dtype=torch.float64).eval()
    for n in (*range(3, 10), 3):
        x = torch.randn(1, 2, n, 4, dtype=torch.float64)
        z, _ = layer(x)
        back, _ = torch.utils.checkpoint.checkpoint(layer.inverse, z, use_reentrant=False)
        back.sum().backward()  # calls it once more
        torch.testing.assert_close(back, x)
    assert layer._inverses is not None
    assert layer._inverses.grids() == [(7, 4), (8, 4), (9, 4), (3, 4)]


def test_a_stream_has_its_own_and_a_graph_keeps_its(monkeypatch: Any, factored: list[str]) -> None:
    """As on a CUDA device, whose streams run beside each other."""
    layer, x = it.PeriodicConv2d(2).eval(), torch.randn(1, 2, 3, 4)

    def factors(stream: int, recorded: bool = False) -> int:
        monkeypatch.setattr(remembered, "queue_of", lambda t: (stream, recorded))
        factored.clear()
        with torch.no_grad():
            layer.inverse(x)
        return len(factored)

    assert [factors(1), factors(1), factors(2), factors(2), factors(1)] == [1, 0, 1, 0, 0]
    assert [factors(3, recorded=True), factors(3, recorded=True)] == [0, 0]  # that of stream 1
    (kept,) = layer._inverses._in_graphs
    assert kept is layer._inverses._kept[(3, 4), 1]
    layer.train().eval()
    assert layer._inverses._in_graphs == [kept]
    assert [factors(3, recorded=True), factors(3, recorded=True)] == [1, 1]  # in the graph
    assert [factors(3), factors(1), factors(1)] == [1, 1, 0]
    with torch.no_grad():
        layer.kernel.mul_(2)
    assert [factors(3, recorded=True), factors(1)] == [1, 1]


def test_a_tensor_in_place_of_a_parameter_is_never_stale() -> None:
    """As hypernetworks, and PyTorch's first weight_norm and prune, put one there."""
    layer = it.Conv1x1(3, bias=False, dtype=torch.float64).eval()
    weight = layer.weight.detach().clone()
    del layer.weight
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for scale in (1.0, 2.0, 3.0):
        layer.weight = scale * weight
        z, log_det = layer(x)
        back, other = layer.inverse(z)
        torch.testing.assert_close(back, x)
        torch.testing.assert_close(other, -log_det)
    other = it.Conv1x1(3).double().eval()
    torch.nn.init.ones_(other.bias)
    other.inverse(x)
    other.bias = None
    torch.testing.assert_close(other(other.inverse(x)[0])[0], x)
    pruned = prune.identity(it.Conv1x1(3).double().eval(), "weight")
    torch.nn.init.eye_(pruned.weight_orig)
    torch.testing.assert_close(pruned.inverse(x)[0], x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("recorded", [True, False])
def test_tangents_of_parameters_are_not_forgotten(recorded: bool) -> None:
    layer = it.PeriodicConv2d(2, 3, dtype=torch.float64).eval().requires_grad_(False)
    z, step = torch.randn(1, 2, 4, 5, dtype=torch.float64), torch.randn_like(layer.kernel)

    def inverse(kernel: Any) -> Any:
        return functional_call(Method(layer, "inverse"), {"layer.kernel": kernel}, (z,))[0]

    ahead, behind, _ = (inverse(layer.kernel + h * step) for h in (1e-5, -1e-5, 0))  # kept
    with torch.set_grad_enabled(recorded), forward_ad.dual_level():
        found = forward_ad.unpack_dual(inverse(forward_ad.make_dual(+layer.kernel, step))).tangent
    torch.testing.assert_close(found, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-6)
