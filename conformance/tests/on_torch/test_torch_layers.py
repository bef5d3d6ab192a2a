"""PyTorch layers as modules: how they begin, copies, states, dtypes, memory formats, autocast."""

import copy
import inspect
import io
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributions import Transform
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import invconv as ic
import invconv_torch as it
from invconv.arrays.registry import PRIMITIVES
from invconv.flows.architecture import GlowArchitecture
from invconv.stability import guard
from invconv_torch.interop import TorchTransform
from invconv_torch.module import Direction
from invconv_torch.pointwise_layers import Layer
from tests.conftest import TORCH_LAYERS


def make(name: str) -> Any:
    kind, arguments, settings, _ = TORCH_LAYERS[name]
    return getattr(it, kind)(*arguments, **settings)


def test_parameters_begin_as_the_seed_says(layer_name: str) -> None:
    """In the default dtype, whatever the memory of a layer held that was deferred."""
    with torch.device("meta"):
        layer = make(layer_name)
    layer.to_empty(device="cpu")
    for tensor in layer.state_dict().values():
        tensor.fill_(-7)
    expected, finer = make(layer_name), make(layer_name).double()
    for each in (layer, expected, finer):
        torch.manual_seed(5)
        with torch.device("meta"):  # new tensors do not go where the layer is
            each.reset_parameters()
    state, found = expected.state_dict(), layer.state_dict()
    assert all(torch.equal(found[n], t) for n, t in state.items())
    assert {p.dtype for p in expected.parameters()} == {torch.float32}
    assert all(p.is_contiguous() for p in expected.parameters()), "torch.export.save would warn"
    layer.reset_parameters()
    again = all(torch.equal(found[n], t) for n, t in state.items())
    rounded = all(torch.equal(p.float().double(), p) for p in finer.parameters())
    assert again == rounded == (layer_name == "actnorm")  # which begins at the identity


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
def test_an_operator_keeps_its_dtype(dtype: str) -> None:
    conv = ic.EmergingConv.init(3, rng=np.random.default_rng(0), like=np.zeros(1, dtype))
    wanted = torch.float32 if dtype == "float32" else torch.float64
    for module in (it.InvertibleModule(conv), TorchTransform(conv)):
        assert {p.dtype for p in module.parameters()} == {wanted}
    kernel = it.InvertibleModule(conv).first.kernel.detach().numpy()
    np.testing.assert_array_equal(kernel, conv.first.kernel)
    half = it.InvertibleModule(conv, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    mixed: Any = ic.Chain([ic.PLUConv1x1.init(3, rng=np.random.default_rng(0), like=kernel), conv])
    for one in (mixed, mixed.asarrays(torch.zeros(1))):
        there = it.InvertibleModule(one, device="meta", dtype=torch.float64).state_dict().values()
        assert all(t.is_meta for t in there)
        assert {t.dtype for t in there} == {torch.float64, torch.int64}
    torch.nn.init.zeros_(it.InvertibleModule(one)._modules["0"].upper)
    assert one.steps[0].upper.any()  # what a layer trains is a copy


@pytest.mark.parametrize("name", [n for n in TORCH_LAYERS if not n.endswith("1d")])
def test_channels_last_comes_back(name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(name, grid_factor=2)
    kind = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    last = x.to(memory_format=kind)
    layer.to(memory_format=kind)
    for direction in (layer.forward, layer.inverse, layer.eval().inverse):
        got, expected = direction(last)[0], direction(x)[0]
        with torch.no_grad():
            assert direction(last)[0].is_contiguous(memory_format=kind)
        assert got.is_contiguous(memory_format=kind)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in TORCH_LAYERS if n not in ("actnorm", "circulant")])
def test_parametrizations(name: str, torch_layer: Any) -> None:
    """PyTorch's weight_norm of the largest parameter: the same map, and gradients beneath it."""
    layer, x = torch_layer(name)
    largest, _ = max(layer.named_parameters(), key=lambda item: item[1].numel())
    path, _, own = largest.rpartition(".")
    module, expected = layer.get_submodule(path), layer(x)
    torch.nn.utils.parametrizations.weight_norm(module, own)
    z, log_det = layer(x)
    torch.testing.assert_close((z, log_det), expected, rtol=1e-12, atol=1e-12)
    for mode in (True, False):
        back, _ = layer.train(mode).inverse(z)
        torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    (z**2).sum().backward()
    beneath = list(module.parametrizations[own].parameters())
    assert beneath
    assert all(p.grad is not None and p.grad.isfinite().all() for p in beneath)


def test_initialize_reaches_beneath_a_parametrization(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = it.ActNorm(2), (5 + 2 * torch.randn(9, 2, 99)).bfloat16()
    torch.nn.utils.parametrize.register_parametrization(layer, "log_scale", torch.nn.Hardtanh())
    with torch.autocast("cpu"):
        with pytest.raises(RuntimeError, match="expected parameters named log_scale, which"):
            layer.initialize(x)
        monkeypatch.setattr(torch.nn.Hardtanh, "right_inverse", lambda _, w: w, raising=False)
        layer.initialize(x)
        assert (layer(x)[0].square().mean((0, 2)) - 1).abs().max() < 1e-4


def test_copies_and_states_are_the_same_layer(layer_name: str, torch_layer: Any) -> None:
    """Pickled, copied, or by a file of its state, which only a layer of its own kind takes."""
    layer, x = torch_layer(layer_name)
    layer.eval().inverse(x)  # what is remembered does not travel
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    stream.seek(0)
    state = torch.load(stream)
    kind, arguments, settings, _ = TORCH_LAYERS[layer_name]
    make_another = partial(getattr(it, kind), *arguments, dtype=torch.float64)
    loaded = make_another(**settings).eval()
    loaded.load_state_dict(state)
    for same in (loaded, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert same._inverses is None
        for method in ("forward", "inverse"):
            pair = getattr(same, method)(x), getattr(layer, method)(x)
            torch.testing.assert_close(*pair, rtol=0, atol=0)
    for more in ({"max_gain": 7.0}, {"dilation": 3}, {"padding": "circular"}, {"direction": 1}):
        if next(iter(more)) in inspect.signature(getattr(it, kind)).parameters:
            another = make_another(**(settings | more))
            if repr(another) == repr(loaded):
                continue
            with pytest.raises(RuntimeError, match="got that of"):
                another.load_state_dict(state)
            another.load_state_dict(dict(state))  # which says nothing of its kind


@pytest.mark.parametrize(
    ("layer", "another"),
    [
        (it.PeriodicConv2d(2), it.ExponentialConv2d(2)),
        (it.Conv1x1(2, max_gain=np.float64(7)), it.Conv1x1(2)),
        (it.Squeeze(basis=np.str_("haar")), it.Squeeze()),
        (it.SymmetricConv2d(2, boundary=(np.str_("mirror"), "odd")), it.SymmetricConv2d(2)),
        (it.ExponentialConv2d(2, padding=np.str_("circular")), it.ExponentialConv2d(2)),
        (it.AutoregressiveConv1d(2, mask=np.str_("raster")), it.AutoregressiveConv1d(2)),
        (it.AutoregressiveConv1d(2, channel_order=np.str_("upper")), it.AutoregressiveConv1d(2)),
        (it.flows.AffineCoupling(2, 4), it.flows.AffineCoupling(2, 4, swapped=True)),
        (it.flows.Split(2, scale_floor=0.5), it.flows.Split(2)),
    ],
)
def test_a_state_of_another_kind_is_refused_in_a_model_too(layer: Any, another: Any) -> None:
    one, other = (torch.nn.Sequential(each, it.ActNorm(2)) for each in (layer, another))
    stream = io.BytesIO()
    torch.save(one.state_dict(), stream)
    stream.seek(0)
    state = torch.load(stream)
    copy.deepcopy(one).load_state_dict(state)
    message = r"0: expected the state of (\w+)\(.*, got that of \w+\("
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(state, strict=strict)
    other.load_state_dict(dict(state))  # which says nothing of its kind


def test_a_layer_is_moved_or_made_of_fake_tensors(layer_name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name)
    with FakeTensorMode():
        fake = list(make(layer_name).parameters())
        assert all(isinstance(p.data, FakeTensor) for p in fake)
    assert [p.shape for p in fake] == [p.shape for p in layer.parameters()]
    assert copy.deepcopy(layer).float().double()(x)[0].dtype == torch.float64
    layer = layer.to("meta")
    assert all(t.is_meta for t in layer.state_dict().values())
    assert all(t.is_meta for t in layer.forward(x.to("meta")))


def test_autocast_factors_in_the_parameters_dtype(layer_name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name, dtype=torch.float32)
    for method in ("forward", "inverse"):
        call = getattr(layer, method)
        expected = call(x)
        half = call(x.bfloat16().float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(torch.equal(a, b) for a, b in zip(call(x), expected, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(call(x.bfloat16()), half, strict=True))
            for other in (x.double(), x.long(), x.cfloat()):
                with pytest.raises(TypeError, match=r"expected .*dtype.*, got"):
                    call(other)
    with pytest.raises(TypeError, match="expected dtype float32"):
        layer(x.bfloat16())


def test_arguments_and_repr() -> None:
    layer = it.EmergingConv2d(4, (3, 5), dilation=(1, 2), mask="raster", mixing="plu", bias=False)
    for shown in ("raster", "dilation=(1, 2)", "PLUConv1x1", "bias=False", "kernel_size=(2, 5)"):
        assert shown in repr(layer)
    turned: Any = it.AutoregressiveConv2d(2, direction=(1, -1), channel_order="upper").operator()
    assert (turned.direction, turned.channel_order) == ((1, -1), "upper")
    mixed = it.SymmetricConv2d(2, (5, 4), boundary=("symmetric", "periodic"))
    assert "kernel_size=(5, 4)" in repr(mixed)
    names = set(layer.state_dict())
    assert {"first.kernel", "second.kernel", "mixing.lower", "mixing.permutation"} <= names
    assert isinstance(layer.operator(), ic.Chain)
    steep: Any = it.EmergingConv2d(2, mixing="qr", max_gain=3.0)  # of all its steps together
    for weight in (steep.mixing.upper, steep.first.kernel):
        torch.nn.init.constant_(weight, 50.0)
    assert steep(torch.ones(1, 2, 1, 1))[0].norm() < 3.01 * 2**0.5
    free = it.EmergingConv2d(2, mixing="qr")
    free.load_state_dict(dict(steep.state_dict()))
    once, x = ic.bounded(free.operator(), 3.0), torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(once.forward(x), steep(x)[0])
    for far, kept in ((1.0, "cached inverse"), (1e4, "LU factors")):
        kernel = torch.tensor([[1.0, far], [0.0, 1.0]])[..., None]
        plan = ic.PeriodicConv(kernel).prepare((3,), check=False).plan
        assert (plan.method, plan.per_frequency) == ("spectral", kept)


def test_defaults_are_those_of_what_is_wrapped() -> None:
    own: list[Any]
    own = [c for n in it.__all__ if isinstance(c := getattr(it, n), type) and issubclass(c, Layer)]
    pairs: list[Any] = [(kind, kind(2)._class.init) for kind in own]
    assert all(inspect.signature(kind).parameters["bias"].default is True for kind in own)
    pairs += [(it.flows.Glow, GlowArchitecture), (it.InverseGuard, guard.InverseGuard)]
    pairs += [(it.Squeeze, ic.squeeze), (TorchTransform, Transform)]
    pairs += [(TorchTransform.with_cache, Transform.with_cache)]
    for library in ("numpy", "torch", "jax"):
        natives = ((p.native(library), p.agnostic) for p in PRIMITIVES.values())
        pairs += [(native, twin) for native, twin in natives if inspect.isfunction(native)]
    for wrapped, wrapping in pairs:
        ours, theirs = (inspect.signature(one).parameters for one in (wrapped, wrapping))
        shared = [name for name in ours if name in theirs and name not in ("device", "dtype")]
        different = [n for n in shared if ours[n].default != theirs[n].default]
        assert not different, (wrapped, different)


def test_what_is_loaded_is_validated() -> None:
    layer, x = it.Conv1x1(3, "plu"), torch.zeros(1, 3, 2, 2)
    layer(x)
    layer.load_state_dict(layer.state_dict() | {"permutation": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(ValueError, match="permutation: expected each of 0 to 2 once"):
        layer(x)


AVERAGES = [{}, {"avg_fn": get_ema_avg_fn(0.9999)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9999)}]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("average", AVERAGES, ids=["mean", "one", "many"])
def test_averages_of_buffers_keep_flags_and_permutations(average: Any, begun: bool) -> None:
    """Exponential averages of PyTorch truncate an integer of that average itself."""
    x = torch.randn(8, 64, 4, 4)
    norm = it.ActNorm(64)
    norm.load_state_dict(norm.state_dict() | {"initialized": torch.tensor(False)})  # of 1.0
    norm.initialize(x)
    glow = it.flows.Glow((16, 8, 8), levels=1, depth=1, width=2, mixing="plu")
    for layer in (norm, it.Conv1x1(64, "plu"), it.EmergingConv2d(64, mixing="plu"), glow):
        x = x.reshape(8, 16, 8, 8).sigmoid() if layer is glow else x
        copied = AveragedModel(layer, use_buffers=True, **average)
        if begun:
            copied(x)
        for _ in range(3):
            copied.update_parameters(layer)
        torch.testing.assert_close(copied(x), layer(x), rtol=1e-4, atol=1e-4)
        for name, tensor in layer.state_dict().items():
            if name.endswith(("permutation", "initialized")):
                assert torch.equal(copied.module.state_dict()[name], tensor)


def test_an_average_never_mixes_two_permutations() -> None:
    one, two = it.Conv1x1(4, "plu"), it.Conv1x1(4, "plu")
    two.load_state_dict(one.state_dict() | {"permutation": torch.tensor([2, 0, 3, 1])})
    one.load_state_dict(one.state_dict() | {"permutation": torch.arange(4)})
    copied = AveragedModel(one, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.97))
    copied.update_parameters(one)
    seen: set[Any] = set()
    for _ in range(150):
        copied.update_parameters(two)
        try:
            copied(torch.ones(1, 4, 2, 2))
        except ValueError as error:
            seen.add(str(error).partition(",")[0])
        else:
            seen.add(tuple(copied.module.state_dict()["permutation"].tolist()))
    assert seen == {(0, 1, 2, 3), (2, 0, 3, 1), "permutation: expected integers"}


@pytest.mark.parametrize("assign", [True, False])
def test_states_hold_permutations_as_integers_and_half_types_keep_them(assign: bool) -> None:
    layer: Any = it.Conv1x1(600, "plu")
    x = torch.randn(1, 600, 1, 2, dtype=torch.float64)
    order = layer.state_dict()["permutation"]
    assert order.dtype == torch.int64
    assert not torch.equal(order, order.bfloat16().long())
    layer.bfloat16().double()
    assert torch.equal(layer.operator().permutation, order)
    again: Any = it.Conv1x1(600, "plu", dtype=torch.float64)
    assert not torch.equal(again.operator().permutation, order)
    again.load_state_dict(layer.state_dict(), assign=assign)
    copied = AveragedModel(again, use_buffers=True, **AVERAGES[2])
    for _ in range(3):
        copied.update_parameters(again)
    assert torch.equal(copied(x)[0], layer(x)[0])


def test_a_chain_gives_each_of_its_actnorms_what_reaches_it() -> None:
    rng = np.random.default_rng(0)
    steps: list[Any] = [ic.ActNorm.init(3), ic.EmergingConv.init(3, rng=rng), ic.ActNorm.init(3)]
    chain, images = ic.Chain([ic.Chain(steps[:2]), steps[2]]), rng.normal(2, 7, (8, 3, 6, 5))
    first = steps[0].initialize(images)
    last = steps[2].initialize(steps[1].forward(first.forward(images)))
    wanted = ic.Chain([ic.Chain([first, steps[1]]), last]).parameters()
    layer = it.InvertibleModule(chain)
    layer.initialize(torch.asarray(images))
    layers = it.Chain([it.InvertibleModule(chain[0]), it.ActNorm(3, dtype=torch.float64)])
    layers.initialize(torch.asarray(images))
    for found in (chain.initialize(images), layer.operator(), layers.operator()):
        for name, array in found.parameters().items():
            np.testing.assert_allclose(np.asarray(array.tolist()), wanted[name], atol=1e-12)
    assert not chain.parameters()["1.bias"].any()
    with pytest.raises(ValueError, match="step 0: step 0: x: expected images that vary"):
        chain.initialize(np.ones((2, 3, 4, 4)))


def test_signs_follow_parameters_of_another_dtype() -> None:
    """FSDP2 computes so in mixed precision: it casts parameters, and leaves buffers as they are."""
    layer, x = it.EmergingConv2d(4, mixing="plu"), torch.randn(2, 4, 5, 5).bfloat16()
    cast = {f"layer.{name}": p.bfloat16() for name, p in layer.named_parameters()}
    half = copy.deepcopy(layer).bfloat16()
    for direction in ("forward", "inverse"):
        found = torch.func.functional_call(Direction(layer, direction), cast, (x,))
        torch.testing.assert_close(found, getattr(half, direction)(x), rtol=0, atol=0)
