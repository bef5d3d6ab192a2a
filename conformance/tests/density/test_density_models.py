"""Density models: log-likelihoods against brute force, images from their noise, samples back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("skimage", reason="scikit-image is not installed")

from skimage.data import hubble_deep_field  # noqa: E402

from invconv_benchmarks.density.evaluation import round_trip  # noqa: E402
from invconv_benchmarks.density.models.architecture import Architecture  # noqa: E402
from invconv_benchmarks.density.models.build import build  # noqa: E402
from invconv_benchmarks.density.training.health import first_non_finite  # noqa: E402
from invconv_torch import Conv1x1, InverseGuard  # noqa: E402
from invconv_torch.flows import AffineCoupling, Dequantize, Multiscale  # noqa: E402

# the mixing layers of a Glow are those of tests/flows
mixings = pytest.mark.parametrize("mixing", ["emerging", "exponential", "real_nvp", "maf"])


def tiles(count: int, size: int) -> Any:
    """Return pixels of the Hubble deep field, (count, 3, size, size)."""
    pixels = hubble_deep_field()
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [pixels.shape[0] - size, pixels.shape[1] - size], (count, 2))
    cut = np.stack([pixels[i : i + size, j : j + size] for i, j in corners])
    return torch.from_numpy(cut.transpose(0, 3, 1, 2).copy())


def images(count: int, size: int, dtype: Any = torch.float32) -> Any:
    """Return dequantised tiles."""
    pixels = tiles(count, size)
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return Dequantize()(pixels, noise)[0]


def model_of(
    mixing: str, size: int, dtype: Any = torch.float32, spread: float = 0.1, **settings: Any
) -> Multiscale:
    """Return a model that is initialised on real images and then moved away from its start."""
    settings = {"levels": 2, "depth": 2, "width": 8} | settings
    model = build(Architecture(mixing, **settings), (3, size, size), seed=3)
    model.to(dtype)
    model.initialize(images(64, size, dtype))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    model.eval()
    return model


def few(mixing: str) -> dict[str, int]:
    """Return the depth where a Jacobian is taken row by row: series take long."""
    return {"depth": 1} if mixing == "exponential" else {}


@mixings
def test_log_likelihood_is_that_of_the_jacobian(mixing: str) -> None:
    """On 4x4 images; a 3x3 periodic kernel is wider than the last grid, of 2x2 and of 1x1."""
    model, x = model_of(mixing, 4, torch.float64, **few(mixing)), images(2, 4, torch.float64)

    def noise(flat: Any) -> Any:
        return torch.cat([z.flatten() for z in model.encode(flat.reshape(1, 3, 4, 4))[0]])

    for found, one in zip(model.log_prob(x), x.flatten(1), strict=True):
        jacobian = torch.autograd.functional.jacobian(noise, one)
        z = noise(one)
        expected = torch.distributions.Normal(0, 1).log_prob(z).sum()
        expected = expected + torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-8)


@mixings
def test_decode_undoes_encode(mixing: str) -> None:
    model, x = model_of(mixing, 8, torch.float64, 0.05, depth=3), images(3, 8, torch.float64)
    zs, log_det = model.encode(x)
    assert [tuple(z.shape[1:]) for z in zs] == model.latent_shapes
    assert sum(math.prod(shape) for shape in model.latent_shapes) == x[0].numel()
    assert log_det.shape == (3,)
    with torch.no_grad():
        torch.testing.assert_close(model.decode(zs), x, rtol=0, atol=1e-9)


@mixings
def test_real_images_come_back_from_their_noise(mixing: str) -> None:
    size = 8 if mixing == "maf" else 32
    model = model_of(mixing, size, spread=0.03, depth=4)
    found = round_trip.reconstruct(model, images(4, size))
    assert found.count == found.in_range == 4
    assert found.numbers_outside == 0
    assert found.holds, found
    assert found.bound is not None
    assert found.bound < 1e-2, found


@mixings
def test_samples_go_back_to_their_noise(mixing: str) -> None:
    size = 8 if mixing == "maf" else 16
    model = model_of(mixing, size, spread=0.01, depth=4)
    found = round_trip.resample(model, 16, torch.Generator().manual_seed(0), temperature=0.1)
    assert found.non_finite == 0
    assert found.in_range + found.outside == 16
    assert found.in_range > 0
    assert found.holds, found
    assert found.outside_within == found.outside, found
    assert found.bound is not None
    assert found.bound < 1e-1, found


def test_samples_that_are_no_images_are_counted_apart() -> None:
    model = model_of("plain", 8, spread=0.0)
    found = round_trip.resample(model, 8, torch.Generator().manual_seed(0), temperature=2.0)
    assert found.outside == found.outside_within == 8
    assert 0 < (found.numbers_outside or 0) < 1
    assert 0 < (found.share or 0) < 1
    with torch.no_grad():
        model.layers["level1_step0_actnorm"].log_scale.fill_(-90.0)  # the inverse: times e^90
    found = round_trip.resample(model, 8, torch.Generator().manual_seed(0))
    assert found.non_finite == 8
    assert found.holds
    assert found.error is None


def test_a_bound_that_overflows_is_kept_by_none() -> None:
    x, inf = torch.zeros(3, 1, 1, 1), math.inf
    found = round_trip._judged(x, torch.tensor([1.0, 1.0, inf]), torch.tensor([2.0, inf, inf]))
    assert (found.in_range, found.in_range_within) == (3, 1)
    assert found.share is None
    assert not found.holds
    found = round_trip._judged(x[:2], torch.tensor([1.0, 3.0]), torch.tensor([4.0, 5.0]))
    assert [found.error, found.bound, found.share] == pytest.approx([3.0, 5.0, 0.6])


def test_the_bound_follows_the_condition_and_not_a_wrong_inverse() -> None:
    model, x = model_of("plain", 8, spread=0.0), images(4, 8)
    bounds = round_trip.image_bounds(model, x)
    assert (bounds < 1e-4).all()
    model.layers["level0_step0_coupling"].__class__ = _OffCoupling
    assert (round_trip.image_bounds(model, x) < 1e-4).all()
    found = round_trip.reconstruct(model, x)
    assert not found.holds
    assert found.in_range_within == 0
    model.layers["level0_step0_coupling"].__class__ = AffineCoupling
    with torch.no_grad():
        model.layers["level1_step0_actnorm"].log_scale[0] -= 10.0  # its inverse multiplies by e^10
    assert (round_trip.image_bounds(model, x) > 100 * bounds).all()
    assert round_trip.reconstruct(model, x).holds


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("way", ["images", "noise"])
def test_the_bound_is_what_rounding_does_to_sums_that_are_known(way: str, bias: float) -> None:
    """Of a reflection alone, which carries an error on as it is: the largest of many N(0, e^2)."""
    model, reflection = Multiscale((3, 32, 32), [Conv1x1(3)]), torch.eye(3) - 2 / 3
    x = 0.5 + 0.1 * images(2, 32) - bias * reflection[:, :1, None]  # z is without the bias
    with torch.no_grad():
        ((_, layer),) = model.steps()
        layer.weight.copy_(reflection)
        layer.bias[0] = bias
        (z,), _ = model.encode(x)
    by_image = way == "images"
    found = round_trip.image_bounds(model, x) if by_image else round_trip.noise_bounds(model, [z])
    sizes = torch.stack([(x - 0.5).abs(), z.abs(), torch.full_like(z, bias)]).amax((0, 2, 3, 4))
    unit, terms, draws = 2.0**-24, 3, 8 * 3 * 32 * 32  # a layer runs both ways
    most = scipy.stats.norm.isf(0.5 / draws)
    expected = most * unit * math.sqrt(2 * terms) * sizes.double()
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0)


class _OffCoupling(AffineCoupling):
    def inverse(self, z: Any, context: Any = None) -> tuple[Any, Any]:
        x, log_det = super().inverse(z, context)
        return x + 1e-3, log_det


def test_maf_sees_only_earlier_numbers() -> None:
    """The Jacobian of a layer is triangular in the order of rows, pixels and channels."""
    model, x = model_of("maf", 4, torch.float64), images(1, 4, torch.float64)
    for name, backwards in (("step0_autoregressive", False), ("step1_autoregressive", True)):
        layer = model.layers[name]
        jacobian = torch.autograd.functional.jacobian(lambda x, f=layer: f(x)[0], x)[0, :, :, :, 0]
        matrix = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(48, 48)
        later = torch.tril(matrix, -1) if backwards else torch.triu(matrix, 1)
        earlier = torch.triu(matrix, 1) if backwards else torch.tril(matrix, -1)
        assert not later.any()
        assert (earlier != 0).float().mean() > 0.1
        assert matrix.diagonal().min() > 0


def test_real_nvp_masks_take_turns() -> None:
    """Every number is changed by a coupling of each level, and none by all of them."""
    model, x = model_of("real_nvp", 8, torch.float64, depth=4), images(1, 8, torch.float64)
    changed: dict[str, Any] = {}
    for name, layer in model.layers.items():
        out = layer(x)[0]
        if "coupling" in name:
            kind = "checkerboard" if hasattr(layer, "kept") else "channels"
            changed.setdefault(name.split("_")[0] + kind, []).append(out != x)
        x = out[0] if isinstance(out, tuple) else out
    assert len(changed) == 4
    for first, second in changed.values():
        assert not (first & second).any()
        assert (first | second).all()


def test_the_first_bad_layer_has_a_name() -> None:
    model, x = model_of("periodic", 8), images(2, 8)
    assert first_non_finite(model, x) is None
    names = [name for name, _ in model.steps()]
    assert names == [n for n, _ in model.named_modules() if n.count(".") == 1]
    with torch.no_grad():
        model.layers["level0_step1_mixing"].kernel[0, 0, 0, 0] = math.nan
    assert first_non_finite(model, x) == "layers.level0_step1_mixing"
    guard = InverseGuard(model)
    model.log_prob(x)
    assert guard.step(model).name in names
