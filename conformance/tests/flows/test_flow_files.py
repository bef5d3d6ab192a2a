"""A flow is a file: what is written is read, and what is no flow is refused with a sentence."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

import invconv as ic
import invconv_torch
from invconv.files.saving import arrays_of
from invconv.flows.architecture import GlowArchitecture, initial_arrays, mixing_operator
from invconv.flows.density import affine, inverse_affine
from tests.flows.small_flows import MIXINGS, SHAPE, glow, moved, own_parts

NAME = "flow.safetensors"


@pytest.mark.parametrize("mixing", MIXINGS)
def test_names_and_shapes_are_those_of_torch_and_operators_the_same(mixing: str) -> None:
    flow = moved(glow(mixing, kernel_size=5, context=2, levels=2))
    state = {n.removeprefix("layers."): t for n, t in flow.state_dict().items()}
    state = {n: t for n, t in state.items() if not n.endswith(".initialized")}
    assert {n: tuple(t.shape) for n, t in state.items()} == flow.architecture.arrays()
    assert flow.architecture.latent_shapes == flow.latent_shapes
    names = flow.layers.keys()
    for at in {name.rpartition("_")[0] for name in names if "step" in name}:
        here = (f"{at}_{n}" for n in ("conv1x1", "mixing"))
        layers = invconv_torch.Chain(flow.layers[name] for name in here if name in names)
        x = torch.randn(2, layers.operator().channels, 3, 5, dtype=torch.float64)
        conv = mixing_operator(flow.architecture, arrays_of(at, state))
        with torch.no_grad():
            found, expected = conv.forward_and_log_det(x), layers(x)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_whether_it_is_initialized_is_in_the_file(tmp_path: Path) -> None:
    flow = glow()
    flow.initialize(torch.rand(8, *SHAPE))
    drawn = torch.get_rng_state()
    invconv_torch.save(flow, tmp_path / NAME)
    assert invconv_torch.load(tmp_path / NAME).initialized
    assert torch.equal(torch.get_rng_state(), drawn)  # a file leaves the user's numbers alone
    before = (tmp_path / NAME).read_bytes()
    with torch.no_grad():
        flow.layers["level0_step0_coupling"].net[0].bias[0] = math.inf
    with pytest.raises(ValueError, match=r"level0_step0_coupling\.net\.0\.bias: expected finite"):
        invconv_torch.save(flow, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_no_file_describes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"layer .*, got Multi.*; pass .* save its state_dict"):
        invconv_torch.save(own_parts(), tmp_path / NAME)
    for name, layer in (
        ("level0_step0_mixing", invconv_torch.PeriodicConv2d(4, dilation=2, bias=False)),
        ("level0_squeeze", invconv_torch.Squeeze(basis="haar")),
        ("further", invconv_torch.ActNorm(4)),
    ):
        changed = glow("periodic")
        changed.layers[name] = layer
        with pytest.raises(ValueError, match=f"model: cannot be saved, .* got {name}: "):
            invconv_torch.save(changed, tmp_path / NAME)
    for name in ("level0_squeeze", "level0_step0_mixing"):
        changed = glow("plain")
        gone = changed.layers.pop(name)
        for _ in ("deleted", "moved to the end"):
            with pytest.raises(
                ValueError, match=f"model: .* expected {name}: .*, got level0_step0"
            ):
                invconv_torch.save(changed, tmp_path / NAME)
            changed.layers[name] = gone
    assert not (tmp_path / NAME).exists()
    invconv_torch.save(glow("plain"), tmp_path / NAME)
    same = ic.load(tmp_path / NAME, like=torch.empty(0, dtype=torch.float64))
    assert isinstance(same, type(changed))
    assert next(same.parameters()).dtype == torch.float64
    with torch.no_grad():
        flow = glow("plain", dtype=torch.float64)
        flow.layers["level0_step0_actnorm"].bias[0] = -1e300
    invconv_torch.save(flow, tmp_path / NAME)
    with pytest.raises(ValueError, match=r"dtype: .* that holds level0_step0_actnorm\.bias"):
        invconv_torch.load(tmp_path / NAME, dtype=torch.float32)


WEIGHT = "level0_step0_coupling.net.0.weight"
PERMUTATION = "level0_step0_mixing.permutation"
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another kind": ({"kind": "maf"}, {}, "expected the kind 'glow', got 'maf'"),
    "more": ({"colour": 1}, {}, "expected shape, levels"),
    "less": ({"depth": None}, {}, "flow: depth"),
    "text": ({"shape": "144"}, {}, "flow: shape"),
    "more levels": ({"shape": [1, 2**30, 2**30], "levels": 30}, {}, "have more than"),
    "another shape": ({"shape": [2, 4, 4]}, {}, "has the shape"),
    "deep": ({"depth": 2**31 - 1}, {}, "have more than"),
    "wide": ({"width": 2**31 - 1}, {}, "has the shape"),
    "many levels": ({"levels": 10**9}, {}, "flow: shape"),
    "floor": ({"scale_floor": math.nan}, {}, "flow: scale_floor"),
    "beside: number": ({"initialized": 1}, {}, "initialized is neither true nor false"),
    "beside: more": ({"colour": 1}, {}, r"the description has \['colour', 'flow'"),
    "beside: no flow": ({"flow": "glow"}, {}, "expected a flow, got 'glow'"),
    "missing": ({}, {WEIGHT: None}, "other arrays than those of the flow"),
    "left over": ({}, {"extra": torch.zeros(1)}, "other arrays than those of the flow"),
    "shape": ({}, {WEIGHT: torch.zeros(4, 2, 3, 1)}, "has the shape"),
    "nan": ({}, {WEIGHT: torch.full((4, 2, 3, 3), math.nan)}, "holds NaN or inf"),
    "permutation": ({}, {PERMUTATION: torch.zeros(4, dtype=torch.int64)}, "permutation"),
    "real": ({}, {PERMUTATION: torch.arange(4.0)}, "another kind of dtype"),
    "dtype": ({}, {WEIGHT: torch.zeros(4, 2, 3, 3).double()}, "arrays of one real dtype"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    changes, arrays, message = CHANGES[name]
    path = tmp_path / NAME
    invconv_torch.save(glow("plu", levels=1), path)
    with safetensors.safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["invconv"])
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    (document if name.startswith("beside") else document["flow"]).update(changes)
    tensors = {n: t for n, t in (tensors | arrays).items() if t is not None}
    save_file(tensors, path, {"invconv": json.dumps(document)})
    with pytest.raises(ic.InvalidFileError, match=message) as raised:
        invconv_torch.load(path)
    assert str(path) in str(raised.value)


def test_an_image_in_a_file_may_be_large_and_takes_no_memory(tmp_path: Path) -> None:
    flow = glow("plain", (1, 2**20, 2**20), levels=1, depth=1)
    invconv_torch.save(flow, tmp_path / NAME)
    assert invconv_torch.load(tmp_path / NAME).latent_shapes == [(4, 2**19, 2**19)]


def test_architectures_are_what_their_values_say() -> None:
    made = GlowArchitecture((3, 8, 8), 2, 4, 32, context=np.int64(2))  # type: ignore[arg-type]
    assert GlowArchitecture.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.scale_floor == 0.5  # without one, samples explode


def test_a_glow_is_the_papers_unless_told() -> None:
    """Three levels of 32 steps, and networks of 512 channels; but for scales of 1/2 at least."""
    settings = {"levels": 3, "depth": 32, "width": 512, "mixing": "emerging", "kernel_size": 3}
    others = {"shape": [3, 8, 8], "squeeze": "pixels", "scale_floor": 0.5, "context": None}
    assert GlowArchitecture((3, 8, 8)).to_dict() == settings | others


def test_training_starts_from_the_numbers_of_pytorchs_convolutions() -> None:
    """Uniform within the root of their inputs, in weights and biases; else zeros."""
    glow = GlowArchitecture((3, 8, 8), levels=1, depth=1, width=64)
    arrays = initial_arrays(glow, np.random.default_rng(0))
    for i, inputs in ((0, 6), (2, 64)):
        conv = torch.nn.Conv2d(inputs, 64, (3, 1)[i // 2])
        for name, weight in conv.named_parameters():
            drawn = np.abs(arrays[f"level0_step0_coupling.net.{i}.{name}"])
            assert drawn.shape == weight.shape
            assert drawn.max() == pytest.approx(float(weight.detach().abs().max()), rel=0.05)
    assert not arrays["level0_step0_coupling.net.4.weight"].any()


def test_scales_of_a_half_type_have_log_determinants_of_float32() -> None:
    x, scale = torch.ones(1, 1000).bfloat16(), torch.full((1, 1000), 1.1).bfloat16()
    for run, sign in ((affine, 1), (inverse_affine, -1)):
        log_det = run(x, x, scale)[1]
        torch.testing.assert_close(log_det, sign * scale.float().log().sum(1), rtol=1e-5, atol=0)
