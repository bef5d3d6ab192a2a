"""Flows of invconv_torch: densities against brute force, and what they do in training."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import invconv_torch
from invconv_torch import Conv1x1
from invconv_torch.flows import AffineCoupling, Dequantize, Multiscale, Split
from tests.flows.small_flows import MIXINGS, SHAPE, glow, jacobians, moved, own_parts

FLOWS: dict[str, Callable[[], Multiscale]] = {
    **{name: partial(glow, name) for name in MIXINGS},
    "haar": lambda: glow(squeeze="haar"),
    "dct": lambda: glow(squeeze="dct"),
    "depth": lambda: glow("qr", depth=3, levels=1),
    "kernel size": lambda: glow(kernel_size=5),
    "floor": lambda: glow(scale_floor=0),
    "context": lambda: glow("plu", context=3),
    "reversible": lambda: glow("emerging_qr", reversible=True),
    "function": lambda: glow(lambda channels: Conv1x1(channels, "qr", bias=True)),
    "own parts": own_parts,
    "own context": lambda: own_parts(3),
}


@pytest.mark.parametrize("name", FLOWS)
def test_log_prob_is_that_of_the_jacobian_and_decode_undoes_encode(name: str) -> None:
    flow = moved(FLOWS[name]())
    context = torch.randn(2, 3, dtype=torch.float64) if flow.conditional else None
    jacobians(flow, torch.rand(2, *SHAPE, dtype=torch.float64), context)


def test_a_program_has_a_dynamic_batch_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, x = moved(glow("emerging_qr")).eval(), torch.rand(9, *SHAPE, dtype=torch.float64)
    monkeypatch.setattr(flow, "forward", lambda x: flow.decode(flow.encode(x)[0]))
    program = torch.export.export(flow, (x[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(x), x, rtol=0, atol=1e-9)


def test_a_context_is_of_its_sample_and_may_be_an_image() -> None:
    """And samples with it are noise times the temperature, decoded."""
    flow = moved(glow("plain", (3, 8, 8), context=2))
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    rows = torch.randn(3, 2, dtype=torch.float64)
    whole = flow.log_prob(x, context=rows)
    assert torch.equal(flow(x, rows), whole)
    apart = [flow.log_prob(x[i : i + 1], context=rows[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(apart))
    assert not torch.allclose(whole, flow.log_prob(x, context=rows.flip(0)))
    flat = rows[:, :, None, None].expand(-1, -1, 8, 8)
    torch.testing.assert_close(flow.log_prob(x, context=flat), whole)
    images = flat.clone()
    images[:, :, :4] += 1.0
    assert not torch.allclose(flow.log_prob(x, context=images), whole)
    pixels = torch.randn(3, 2, 16, 8, dtype=torch.float64)
    means = torch.nn.functional.avg_pool2d(pixels, (4, 2))  # on the grid of the first level
    expected = flow.log_prob(x, context=means)
    torch.testing.assert_close(flow.log_prob(x, context=pixels), expected)
    images.requires_grad_()
    flow.log_prob(x, context=images).sum().backward()
    assert (images.grad.flatten(1) != 0).any(dim=1).all()
    pixels, noise = torch.randint(256, x.shape, dtype=torch.uint8), torch.rand_like(x)
    log_prob = flow.log_prob(flow.dequantize(pixels, noise)[0], context=rows)
    bits = flow.bits_per_dim(pixels, noise, context=rows)
    torch.testing.assert_close(bits, 8 - log_prob / (192 * math.log(2)))
    with pytest.raises(ValueError, match="context: expected none, as no layer takes"):
        glow().sample(1, context=rows[:1])
    generator = torch.Generator().manual_seed(0)
    sample = flow.prepare().sample(3, 0.5, context=rows, generator=generator)
    zs, _ = flow.encode(sample, context=rows)
    again = [0.5 * z for z in flow.draw_latents(3, torch.Generator().manual_seed(0))]
    torch.testing.assert_close(zs, again, rtol=0, atol=1e-8)


def test_what_a_split_keeps_may_be_edited() -> None:
    x = torch.rand(2, 2, 3, 3, requires_grad=True)
    Split(2)(x)[0][0].mul_(2).sum().backward()
    assert torch.equal(x.grad, torch.tensor([2.0, 0.0])[:, None, None].expand_as(x))


def test_parts_and_files_go_where_they_are_told(tmp_path: Path) -> None:
    where: dict[str, Any] = {"device": "meta", "dtype": torch.float64}
    made: list[Any] = [glow("qr", **where), AffineCoupling(4, 8, **where), Split(4, **where)]
    for model in (glow("qr"), Conv1x1(2)):
        invconv_torch.save(model, tmp_path / "model.safetensors")
        made.append(invconv_torch.load(tmp_path / "model.safetensors", **where))
    for one in made:
        assert {(p.device.type, p.dtype) for p in one.parameters()} == {("meta", torch.float64)}
    assert made[0].dequantize(torch.zeros(1, 1, dtype=torch.uint8))[0].dtype == torch.float64


class Shifted(torch.nn.Module):  # type: ignore[misc]
    """A user's layer of which everything changes as it sees its first images."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.fresh = torch.nn.Parameter(torch.ones(1)), True
        self.norm = torch.nn.utils.weight_norm(torch.nn.Conv2d(1, 1, 1))
        self.norm.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: Any) -> Any:
        if self.fresh:
            self.shift.data.copy_(x.mean())
            self.fresh = False
        self.norm.seen += 1
        return x - self.shift, 0 * self.norm(x).sum((1, 2, 3))

    def inverse(self, z: Any) -> Any:
        return z + self.shift, z.new_zeros(len(z))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_users_layer_is_as_it_was_once_it_is_in_a_flow() -> None:
    layer = Shifted()
    flow = Multiscale((1, 4, 4), [layer])
    assert (layer.shift.item(), layer.fresh, layer.norm.seen.item()) == (1, True, 0)
    flow.log_prob(x := torch.rand(3, 1, 4, 4))
    assert layer.shift.item() == pytest.approx(x.mean().item() - 0.5, abs=1e-6)


def test_a_coupling_and_a_split_are_their_equations() -> None:
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    parts: list[Any] = [AffineCoupling(4, 8, scale_floor=0.2), Split(4, scale_floor=0.3)]
    at_first = parts[0].double()(x)[0][:, 2:], parts[1].double()(x)[0][1]
    scale = 0.2 + 0.8 / (1 + math.exp(-2))
    torch.testing.assert_close(at_first, (scale * x[:, 2:], x[:, 2:]))
    coupling, split = moved(Multiscale((4, 2, 2), parts)).layers.values()
    shift, h = coupling.net(x[:, :2]).chunk(2, dim=1)
    scale = 0.2 + 0.8 / (1 + (-h - 2).exp())
    expected = torch.cat((x[:, :2], scale * (x[:, 2:] + shift)), dim=1)
    torch.testing.assert_close(coupling(x)[0], expected)
    mean, h = split.prior(x[:, :2]).chunk(2, dim=1)
    (kept, z), _ = split(x)
    torch.testing.assert_close(kept, x[:, :2])
    torch.testing.assert_close(z, (x[:, 2:] - mean) * (0.3 + 0.7 / h.exp()))
    kept.zero_()  # memory of its own
    assert x.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_pixels_stay_what_they_are_whatever_the_noise(dtype: Any) -> None:
    images = torch.arange(256, dtype=torch.uint8)[:, None]
    last = torch.tensor(1 - torch.finfo(dtype).eps / 2, dtype=dtype)
    assert (255 + last) / 256 == 1  # rounding alone would leave the range
    for noise in (torch.zeros(256, 1, dtype=dtype), torch.full((256, 1), 0.5, dtype=dtype)):
        for u in (noise, noise + last * (noise == 0)):
            x, log_det = Dequantize()(images, u)
            assert x.dtype == dtype
            assert bool(((x >= images / 256) & (x < (images + 1.0) / 256)).all())
            back, inverse_log_det = Dequantize().inverse(x)
            assert torch.equal(back, images)
            assert torch.equal(inverse_log_det, -log_det)
    assert log_det[0].double().item() == pytest.approx(-math.log(256), rel=1e-7)
    many = torch.zeros(1, 12_000, dtype=torch.uint8)
    log_det = Dequantize()(many, many.to(dtype))[1]  # beyond float16's largest number
    assert log_det.item() == pytest.approx(-12_000 * math.log(256), rel=1e-7)


def test_bits_per_dim_of_known_densities() -> None:
    """A uniform density on the cube needs 8 bits; a code for p needs -log2 p."""
    flow, images = moved(glow("qr")), torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    noise = 256 * flow.dequantize(images)[0] - images  # in the flow's dtype
    expected = 8 - flow.log_prob((images + noise) / 256) / math.log(2) / 16
    torch.testing.assert_close(flow.bits_per_dim(images, noise), expected)
    spread = (flow.bits_per_dim(images) - expected).abs()
    assert bool(((spread > 0) & (spread < 0.5)).all())  # of other noise
    twins = images[:1].expand_as(images)
    for one, other in (flow.bits_per_dim(twins), Dequantize()(twins)[0]):
        assert not torch.equal(one, other)


def test_numbers_out_of_range_make_nan_where_nobody_can_look() -> None:
    flow, x = glow("plain"), torch.rand(3, *SHAPE)
    images, x[2, 0, 1, 1] = torch.zeros(3, *SHAPE, dtype=torch.uint8), 0.0  # which is in range
    for number in (1.0, -1e-3):
        bad = x.clone()
        bad[1, 0, 3, 3], bad[0, 0, 0, 0] = number, math.nan
        found, pull_back = torch.func.vjp(flow.log_prob, bad)
        assert found.isnan().tolist() == [True, True, False]
        (gradient,) = pull_back(torch.ones(3))
        assert gradient.flatten(1).isnan().all(1).tolist() == [True, True, False]
    for number in (-1e-3, 1.001):
        bad = x.clone()
        bad[1, 0, 0, 0] = number
        found, _ = torch.func.vjp(lambda noise: flow.bits_per_dim(images, noise), bad)
        assert found.isnan().tolist() == [False, True, False]
    rounded = torch.ones(3, *SHAPE)  # as a cast to fewer digits makes of noise
    assert flow.bits_per_dim(images + 255, rounded).isfinite().all()
    nan = torch.tensor([[0.5, math.nan], [-math.inf, 0.5], [0.5, 2]])
    backwards = lambda x: Dequantize().inverse(x)[::-1]  # noqa: E731
    log_det, _, pixels = torch.func.vjp(backwards, nan, has_aux=True)
    assert pixels[1:].tolist() == [[0, 128], [128, 255]]
    assert log_det.isnan().tolist() == [True, False, False]
