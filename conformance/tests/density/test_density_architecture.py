"""What a density model is: its settings, its seed, its device, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from invconv_benchmarks.density.models.architecture import (  # noqa: E402
    Architecture,
    from_table,
)
from invconv_benchmarks.density.models.build import build  # noqa: E402

mixings = pytest.mark.parametrize("mixing", ["emerging", "real_nvp", "maf"])


@mixings
def test_nothing_is_made_on_another_device_or_in_another_dtype(mixing: str) -> None:
    model = build(Architecture(mixing, 2, 2, 4), (3, 4, 4), seed=0)
    for device, dtype in (("meta", torch.float32), ("cpu", torch.float64)):
        model.to(device=device, dtype=dtype)
        zs, log_det = model.encode(torch.full((2, 3, 4, 4), 0.5, device=device, dtype=dtype))
        with torch.no_grad():
            results = [
                *zs,
                log_det,
                model.decode(zs),
                model.log_prob(model.decode(zs).clamp(0, 0.9)),
            ]
        assert {(r.device.type, r.dtype) for r in results} == {(device, dtype)}
        model = build(Architecture(mixing, 2, 2, 4), (3, 4, 4), seed=0)


@pytest.mark.parametrize("layer", ["level0_step0_coupling", "level0_split"])
def test_the_scale_floor_bounds_what_a_sample_is_divided_by(layer: str) -> None:
    """A network that leaves what it was trained on: scales of e^-20, or of the floor."""
    largest = {}
    for floor in (0.0, 0.1):
        model = build(Architecture("plain", 2, 1, 8, scale_floor=floor), (3, 8, 8), seed=0)
        part = model.layers[layer]
        with torch.no_grad():
            last = part.prior if layer == "level0_split" else part.net[-1]
            last.bias[6:].fill_(20.0 if layer == "level0_split" else -20.0)
            ones = torch.ones(1, 6, 4, 4)
            whole = (ones, ones) if layer == "level0_split" else torch.cat((ones, ones), dim=1)
            largest[floor] = part.inverse(whole)[0].max().item()
    assert largest[0.1] == pytest.approx(10, rel=1e-5)
    assert largest[0.0] > 1e7


def test_the_seed_decides_parameters_and_samples() -> None:
    state = torch.random.get_rng_state()
    first, second, third = (
        build(Architecture("emerging", 1, 1, 4), (3, 4, 4), s) for s in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(
        first.layers["level0_step0_mixing"].first.kernel,
        third.layers["level0_step0_mixing"].first.kernel,
    )
    samples = [first.sample(2, 0.7, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert bool((first.sample(1, 0.0) == 0.5).all())  # noise 0 at the start: a grey image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixing": "lu"}, "mixing"),
        ({"levels": 0}, "levels"),
        ({"depth": 1.5}, "depth"),
        ({"width": -1}, "width"),
        ({"kernel_size": 4}, "kernel_size: expected an odd number"),
        ({"scale_floor": 1.0}, "scale_floor"),
        ({"colour": 1}, "architecture: expected"),
    ],
)
def test_what_is_no_architecture_is_refused(settings: dict[str, Any], message: str) -> None:
    good = asdict(Architecture("emerging", 2, 4, 32))
    assert from_table(Architecture, "architecture", good) == Architecture("emerging", 2, 4, 32)
    with pytest.raises((ValueError, TypeError), match=message):
        from_table(Architecture, "architecture", good | settings)


def test_what_does_not_fit_is_refused() -> None:
    architecture = Architecture("plain", 3, 1, 4)
    with pytest.raises(ValueError, match="multiples of 8"):
        build(architecture, (3, 12, 16), 0)
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        build(architecture, (16, 16), 0)
    model = build(architecture, (3, 8, 8), 0)
    with pytest.raises(ValueError, match="x: expected shape"):
        model.log_prob(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="zs: expected"):
        model.decode([torch.zeros(1, 3, 8, 8)])


@mixings
def test_depth_one_and_odd_depths(mixing: str) -> None:
    for depth in (1, 3):
        model = build(Architecture(mixing, 2, depth, 4), (1, 8, 4), seed=0)
        x = torch.rand(2, 1, 8, 4)
        with torch.no_grad():
            torch.testing.assert_close(model.decode(model.encode(x)[0]), x, rtol=0, atol=1e-4)
