"""A flow trained in PyTorch and run in JAX: the same likelihoods, noise and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from safetensors.torch import save_file  # noqa: E402

from invconv_benchmarks.density.evaluation.round_trip import image_bounds, noise_bounds  # noqa: E402
from invconv_benchmarks.density.models import jax_flow  # noqa: E402
from invconv_benchmarks.density.models.architecture import FLOWS, Architecture  # noqa: E402
from invconv_benchmarks.density.models.build import build  # noqa: E402

SHAPE = (3, 8, 8)


def pixels(count: int = 4) -> Any:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(count, *SHAPE, generator=generator).cumsum(2).cumsum(3)
    return (128 + 8 * smooth).clamp(0, 255).to(torch.uint8)


def trained(mixing: str, dtype: Any = torch.float32, **settings: Any) -> Any:
    """Return a model after a few steps of maximum likelihood."""
    architecture = Architecture(mixing, **({"levels": 2, "depth": 1, "width": 8} | settings))
    model = build(architecture, SHAPE, seed=0).to(dtype)
    images, generator = pixels(32), torch.Generator().manual_seed(1)
    model.initialise((images + torch.rand(images.shape, generator=generator).to(dtype)) / 256 - 0.5)
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-2)
    for _ in range(5):
        noise = torch.rand(images.shape, generator=generator).to(dtype)
        optimizer.zero_grad()
        model.bits_per_dim(images, noise).mean().backward()
        optimizer.step()
    return architecture, model.eval()


@pytest.mark.parametrize("mixing", [m for m in FLOWS if m != "emerging_qr"])  # as emerging_plu
def test_likelihoods_and_samples_are_those_of_torch(mixing: str, tmp_path: Path) -> None:
    architecture, model = trained(mixing)
    save_file(model.state_dict(), tmp_path / "flow.safetensors")
    flow = jax_flow.load(tmp_path / "flow.safetensors", architecture, SHAPE)

    assert flow.latent_shapes == model.latent_shapes

    images = pixels()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model.bits_per_dim(images, noise)
        zs = [0.5 * z for z in model.draw_latents(4, torch.Generator().manual_seed(3))]
        samples = model.decode(zs)
        encoded, _ = model.encode(samples)
    bits = flow.bits_per_dim(jax.numpy.asarray(images.numpy()), jax.numpy.asarray(noise.numpy()))
    np.testing.assert_allclose(bits, expected, rtol=0, atol=1e-5)

    there = [jax.numpy.asarray(z.numpy()) for z in zs]
    drawn = flow.decode(there)
    assert drawn.dtype == np.float32
    # both are within their bound of the exact sample, so within two of each other
    error = np.abs(np.asarray(drawn) - samples.numpy()).reshape(4, -1).max(axis=1)
    assert (error <= 2 * image_bounds(model, samples).numpy()).all()
    back, _ = flow.encode(jax.numpy.asarray(samples.numpy()))
    bounds = noise_bounds(model, encoded).numpy()
    for found, z in zip(back, encoded, strict=True):
        difference = np.abs(np.asarray(found) - z.numpy()).reshape(4, -1).max(axis=1)
        assert (difference <= 2 * bounds).all()


@pytest.mark.parametrize("mixing", ["emerging"])
def test_in_float64_they_agree_to_rounding(mixing: str) -> None:
    architecture, model = trained(mixing, torch.float64, levels=3, scale_floor=0.0, kernel_size=5)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    x = torch.rand(2, *SHAPE, dtype=torch.float64) - 0.5
    with torch.no_grad():
        zs, log_det = model.encode(x)
        expected = model.log_prob(x)
    if not jax.config.jax_enable_x64:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            jax_flow.from_arrays(architecture, SHAPE, arrays)
    with jax.enable_x64(True):
        flow = jax_flow.from_arrays(architecture, SHAPE, arrays)
        assert flow.latent_shapes == model.latent_shapes
        found, found_log_det = flow.encode(jax.numpy.asarray(x.numpy()))
        np.testing.assert_allclose(found_log_det, log_det, rtol=1e-10)
        np.testing.assert_allclose(
            flow.log_prob(jax.numpy.asarray(x.numpy())), expected, rtol=1e-10
        )
        for one, other in zip(found, zs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)
        np.testing.assert_allclose(flow.decode(found), x, rtol=0, atol=1e-8)


def test_names_that_come_later_count_and_others_are_left_out(tmp_path: Path) -> None:
    architecture, model = trained("qr")
    state = model.state_dict()
    average = {n: 0.9 * t for n, t in state.items() if t.is_floating_point()}
    tensors = {f"model.{n}": t for n, t in state.items()}
    tensors |= {f"average.{n}": t for n, t in average.items()}
    save_file(tensors | {"optimiser.step": torch.tensor(3)}, tmp_path / "run.safetensors")
    flow = jax_flow.load(
        tmp_path / "run.safetensors", architecture, SHAPE, prefixes=("model.", "average.")
    )
    model.load_state_dict(state | average)
    x = torch.rand(2, *SHAPE) - 0.5
    with torch.no_grad():
        expected = model.log_prob(x) / x[0].numel()
    found = flow.log_prob(jax.numpy.asarray(x.numpy())) / x[0].numel()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_what_is_no_such_flow_is_refused(tmp_path: Path) -> None:
    architecture, model = trained("plu")
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    name = "layers.level0_step0_mixing.permutation"
    weight = "layers.level0_step0_coupling.net.0.weight"
    broken: list[tuple[dict[str, Any], str]] = [
        ({n: a for n, a in arrays.items() if n != name}, f"expected {name}"),
        (arrays | {"extra": np.zeros(1)}, "no extra"),
        (arrays | {weight: arrays[weight][:1]}, rf"{weight} of shape"),
        (arrays | {weight: np.full_like(arrays[weight], np.nan)}, "NaN or inf"),
        (arrays | {name: np.zeros_like(arrays[name])}, "permutation"),
    ]
    for bad, message in broken:
        with pytest.raises(ValueError, match=message):
            jax_flow.from_arrays(architecture, SHAPE, bad)
    with pytest.raises(ValueError, match="mixing='maf'"):
        jax_flow.from_arrays(Architecture("maf", 2, 2, 8), SHAPE, arrays)
    save_file(model.state_dict(), tmp_path / "flow.safetensors")
    with (tmp_path / "flow.safetensors").open("r+b") as file:
        file.truncate(999)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        jax_flow.load(tmp_path / "flow.safetensors", architecture, SHAPE)
