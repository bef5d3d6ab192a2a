"""A flow's file in JAX: the same likelihoods, noise and samples as in PyTorch, and back again."""

import itertools
import operator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import equinox
import jax
import numpy as np
import optax
import pytest
import torch

import invconv as ic
import invconv_jax
import invconv_torch
from invconv_jax.flows import Glow
from tests.flows.small_flows import MIXINGS, glow, moved
from tests.selected import slow

SHAPE = (3, 4, 4)


def both(
    tmp_path: Path, dtype: Any, mixing: str, shape: Any = SHAPE, **settings: Any
) -> tuple[Any, Any]:
    flow = moved(glow(mixing, shape, **settings), 0.05, dtype)
    invconv_torch.save(flow, tmp_path / "flow.safetensors")
    return flow, invconv_jax.load(tmp_path / "flow.safetensors")


def as_jax(tensor: Any) -> Any:
    return jax.numpy.asarray(tensor.numpy())


@pytest.mark.parametrize("mixing", [m if m == "emerging_qr" else slow(m) for m in MIXINGS])
def test_likelihoods_and_samples_are_those_of_torch(mixing: str, tmp_path: Path) -> None:
    flow, found = both(tmp_path, torch.float32, mixing, levels=1)
    assert found.latent_shapes == flow.latent_shapes
    images = torch.randint(256, (4, *SHAPE), dtype=torch.uint8)
    noise = torch.rand(images.shape)
    zs = [0.5 * z for z in flow.draw_latents(4)]
    with torch.no_grad():
        expected, samples = flow.bits_per_dim(images, noise), flow.decode(zs)
    bits = found.bits_per_dim(as_jax(images), as_jax(noise))
    np.testing.assert_allclose(bits, expected, rtol=0, atol=1e-5)
    assert bits.dtype == "float32"
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        drawn = jax.random.uniform(key, images.shape, "float32")
        bits = found.bits_per_dim(images.numpy(), key)  # whatever library the pixels are of
        np.testing.assert_array_equal(bits, found.bits_per_dim(as_jax(images), drawn))
    twins = as_jax(images[:1].expand_as(images))
    assert len(set(found.bits_per_dim(twins, as_jax(noise)).tolist())) > 2  # in float32
    again = found.decode([as_jax(z) for z in zs])
    np.testing.assert_allclose(again, samples, rtol=0, atol=1e-4 * samples.abs().max().item())


def test_actnorms_are_initialized_as_those_of_torch(tmp_path: Path) -> None:
    flow, found = both(tmp_path, torch.float32, "qr", levels=2, depth=2, context=1)
    x, context = torch.rand(4, *SHAPE), torch.randn(4, 1)
    found = found.initialize(x.numpy(), context.numpy())
    flow.initialize(x, context=context)
    for n in itertools.product((0, 1), repeat=2):  # a later one sees what the others have made
        step = found.levels[n[0]].steps[n[1]]
        wanted = flow.layers["level{}_step{}_actnorm".format(*n)].operator().parameters()
        for name, array in step.mixing.steps[0].parameters().items():
            np.testing.assert_allclose(array, wanted[name].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [slow(()), (4, 4)])
def test_in_float64_they_agree_to_rounding(grid: tuple[int, ...], tmp_path: Path) -> None:
    settings = {"squeeze": "haar", "scale_floor": 0.2, "context": 2, "kernel_size": 5}
    settings |= {"levels": 2, "depth": 1}
    shape = 3, 8, 8
    with jax.enable_x64(True):
        flow, found = both(tmp_path, torch.float64, "emerging_qr", shape, **settings)
        x = torch.rand(2, *shape, dtype=torch.float64)
        context = torch.randn(2, 2, *grid, dtype=torch.float64)
        with torch.no_grad():
            zs, log_det = flow.encode(x, context=context)
        again, log_det_again = found.encode(as_jax(x), as_jax(context))
        np.testing.assert_allclose(log_det_again, log_det, rtol=1e-10)
        for one, other in zip(again, zs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.decode(again, as_jax(context)), x, rtol=0, atol=1e-9)
        key = jax.random.key(0)
        sample = found.sample(key, 2, 0.5, context=as_jax(context))
        one, *others = (np.ravel(z) for z in found.draw_latents(key, 40))
        for other in others:  # each level has noise of its own
            n = min(one.size, other.size)
            assert abs(np.corrcoef(one[:n], other[:n])[0, 1]) < 0.3
        zs, _ = found.encode(sample, as_jax(context))
        for one, other in zip(zs, found.draw_latents(key, 2), strict=True):
            np.testing.assert_allclose(one, 0.5 * other, rtol=0, atol=1e-9)
        with pytest.raises(ValueError, match=r"context: expected float64 of shape \(2, 2\) or"):
            found.log_prob(as_jax(x))


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, *map(slow, (torch.float64, torch.float16))])
def test_every_flow_comes_back_as_it_was(mixing: str, dtype: Any, tmp_path: Path) -> None:
    settings = {"squeeze": "dct", "kernel_size": 5, "context": 1, "scale_floor": 0.1}
    flow = moved(glow(mixing, **settings), 0.05, dtype)
    for name, flag in flow.named_buffers():
        if name.endswith(".initialized"):
            flag.fill_(dtype != torch.float16)
    paths = tmp_path / "of_torch", tmp_path / "of_jax"
    invconv_torch.save(flow, paths[0])
    same = invconv_torch.load(paths[0])
    assert repr(same.eval()) == repr(flow)
    assert same.architecture == flow.architecture
    assert all(torch.equal(t, same.state_dict()[n]) for n, t in flow.state_dict().items())
    with jax.enable_x64(True):
        invconv_jax.save(invconv_jax.load(paths[0]), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_no_file_describes_is_refused(tmp_path: Path) -> None:
    flow = Glow.init(jax.random.key(0), SHAPE, 1, 1, 4, dtype="float32")
    level = flow.levels[0]
    conv: Any
    actnorm, first, conv = level.steps[0].mixing.steps
    exchanged = replace(conv, first=conv.second, second=conv.first)
    dilated = replace(conv, first=replace(conv.first, dilation=(2, 2)))
    for steps in ([first, exchanged], [first, dilated], [conv, first], [conv], [first, conv, conv]):
        step = replace(level.steps[0], mixing=ic.Chain([actnorm, *steps]))
        other = replace(flow, levels=(replace(level, steps=(step,)),))
        with pytest.raises(ValueError, match="model: cannot be saved, since no file describes it"):
            ic.save(other, tmp_path / "flow.safetensors")
    assert not list(tmp_path.iterdir())


def test_float64_is_saved_where_jax_has_none(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        conv = invconv_jax.init(jax.random.key(0), ic.PeriodicConv, 2, dtype="float64")
    with jax.enable_x64(False):
        ic.save(conv, tmp_path / "conv.safetensors")
    assert np.array_equal(ic.load(tmp_path / "conv.safetensors").kernel, conv.kernel)


# XLA takes the last for zero
LOST = ("float64", "float32", 1e-50), ("float64", "float16", 1e-9), ("float32", "float32", 1e-39)


@pytest.mark.parametrize(("source", "dtype", "small"), LOST)
def test_lost_numbers_are_told(source: str, dtype: str, small: float, tmp_path: Path) -> None:
    flow = glow("qr", dtype=getattr(torch, source), levels=1)
    with torch.no_grad():
        flow.layers["level0_step0_mixing"].scale[:2] = small
    invconv_torch.save(flow, tmp_path / "flow.safetensors")
    message = f"dtype: 2 of the 4 numbers of level0_step0_mixing.scale, up to .* zero in {dtype}"
    with pytest.warns(UserWarning, match=message) as caught, jax.enable_x64(False):
        flow = invconv_jax.load(tmp_path / "flow.safetensors", dtype=dtype)
    assert flow.initialized.dtype == dtype
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.slow
def test_what_jax_has_made_and_trained_goes_to_torch(tmp_path: Path) -> None:
    x = as_jax(torch.rand(4, *SHAPE)) / 2
    made = Glow.init(jax.random.key(0), SHAPE, 2, 1, 4, dtype="float32")
    shapes = {p.shape for p in glow("emerging", SHAPE).parameters()}
    assert {a.shape for a in jax.tree.leaves(made.levels)} == shapes
    trained, optimiser = made.initialize(x), optax.adamax(1e-2)
    normalised = trained.levels[0].steps[0].mixing.steps[0].forward(ic.squeeze(x - 0.5))
    np.testing.assert_allclose(normalised.std((0, 2, 3)), 1, rtol=1e-4)
    state, losses = optimiser.init(trained), list[float]()
    step = jax.jit(jax.value_and_grad(lambda flow: -flow.log_prob(x).mean()))
    for _ in range(4):
        loss, gradient = step(trained)
        change, state = optimiser.update(gradient, state)
        trained = optax.apply_updates(trained, change)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < -made.log_prob(x).mean()
    invconv_jax.save(trained, tmp_path / "flow.safetensors")
    same = invconv_torch.load(tmp_path / "flow.safetensors")
    assert (same.architecture, same.initialized) == (made.architecture, True)
    with torch.no_grad():
        expected = same.log_prob(torch.from_numpy(np.array(x)))
    np.testing.assert_allclose(trained.log_prob(x), expected, rtol=1e-5)


@pytest.mark.parametrize("mixing", ["emerging_qr", "exponential"])
def test_a_key_has_one_flow(mixing: str) -> None:
    given = jax.random.key(0), SHAPE, 1, 1, 4
    one, same = (Glow.init(*given, mixing=mixing, dtype="float32") for _ in range(2))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, same))


def test_a_restored_flow_knows_that_it_is_initialized(tmp_path: Path) -> None:
    """A checkpoint holds leaves alone: equinox puts them into a fresh flow."""
    x = as_jax(torch.rand(4, *SHAPE)) / 2
    fresh, other = (Glow.init(jax.random.key(i), SHAPE, 1, 1, 4, dtype="float32") for i in (0, 1))
    trained = fresh.initialize(x)
    equinox.tree_serialise_leaves(tmp_path / "leaves.eqx", trained)
    restored = equinox.tree_deserialise_leaves(tmp_path / "leaves.eqx", other)
    np.testing.assert_array_equal(restored.log_prob(x), trained.log_prob(x))
    assert (bool(fresh.initialized), bool(restored.initialized)) == (False, True)
    with pytest.raises(RuntimeError, match="initialized already"):
        restored.initialize(x)
    assert jax.tree.map(jax.numpy.subtract, restored, fresh).initialized == 1
    with jax.debug_nans(True):
        assert jax.grad(lambda flow: flow.log_prob(x).sum())(trained).initialized == 0
    for name, flow in {"trained": trained, "fresh": fresh}.items():
        invconv_jax.save(flow, tmp_path / name)
        assert bool(invconv_jax.load(tmp_path / name).initialized) == (name == "trained")
    same, images = invconv_torch.load(tmp_path / "fresh"), torch.from_numpy(np.array(x))
    same.initialize(images)
    found, wanted = trained.log_prob(x), same.log_prob(images).detach()
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_of_stacked_flows_those_are_initialized_that_are_not_yet() -> None:
    """In traced code nothing can raise: a trained flow stays as it is."""
    x = as_jax(torch.rand(4, *SHAPE)) / 2
    keys = jax.random.split(jax.random.key(0))
    fresh = jax.vmap(lambda key: Glow.init(key, SHAPE, 1, 1, 4, dtype="float32"))(keys)
    one, other = (jax.tree.map(operator.itemgetter(i), fresh) for i in (0, 1))
    expected = one.initialize(x / 2), other.initialize(x)
    stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), expected[0], other)
    assert jax.eval_shape(lambda: other.initialize(x)).initialized.shape == ()  # of a constant
    found = jax.jit(jax.vmap(lambda flow: flow.initialize(x)))(stacked)
    for i, flow in enumerate(expected):
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(flow), strict=True):
            np.testing.assert_allclose(leaf[i], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_no_image_or_noise_is_refused_or_nan_where_it_is_traced(tmp_path: Path) -> None:
    _, flow = both(tmp_path, torch.float32, "plain", levels=1)
    x = as_jax(torch.rand(3, *SHAPE))
    bad = x.at[1, 2, 3, 3].set(1.0).at[0, 0, 0, 0].set(np.nan)
    images, noise = jax.numpy.zeros(x.shape, "uint8"), x.at[1].add(5.0)
    for name, call in (("x", flow.log_prob), ("noise", partial(flow.bits_per_dim, images))):
        with pytest.raises(TypeError, match=f"^{name}: expected an array"):
            call([0.5])
    traced = jax.jit(lambda flow, x: flow.log_prob(x))(flow, bad)
    assert np.isnan(traced).tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"noise: expected numbers in \[0, 1\), got numbers"):
        flow.bits_per_dim(images, noise)
    traced = jax.jit(lambda flow, u: flow.bits_per_dim(images, u))(flow, noise)
    assert np.isnan(traced).tolist() == [False, True, False]
    gradient = jax.jit(jax.grad(lambda flow: flow.log_prob(x - 2).mean()))(flow)
    assert all(np.isnan(p).any() for p in jax.tree.leaves(gradient.levels[0].steps[0].mixing))
