"""Bounds of ``max_gain`` in files and copies: what was bounded is bounded again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_torch
from invconv.files.description import describe

BOUNDED: dict[str, Callable[[], Any]] = {
    "periodic": lambda: invconv_torch.PeriodicConv2d(3, max_gain=4.0),
    "emerging": lambda: invconv_torch.EmergingConv2d(3, mixing="plu", max_gain=4.0),
    "qr": lambda: invconv_torch.Conv1x1(3, "qr", max_gain=4.0, dtype=torch.bfloat16),
    "chain": lambda: invconv_torch.ReversibleChain(
        [invconv_torch.ActNorm(3), invconv_torch.AutoregressiveConv2d(3, max_gain=4.0)]
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_is_saved_and_restored(name: str, tmp_path: Path) -> None:
    """The layer of a loaded operator keeps the bound while it trains, as the one that was saved."""
    torch.manual_seed(0)
    layer, path = BOUNDED[name](), tmp_path / "conv.safetensors"
    dtype = next(layer.parameters()).dtype
    conv, x = layer.operator(), torch.randn(2, 3, 5, 4).to(dtype)
    ic.save(conv, path)
    loaded = ic.load(path, like=x)
    assert describe(loaded, {}) == describe(conv, {})
    torch.testing.assert_close(loaded.parameters(), conv.parameters())  # bounded by NumPy
    again = invconv_torch.InvertibleModule(ic.load(path, like=x))
    for module in (layer, again):
        for weight in module.parameters():
            torch.manual_seed(weight.numel())  # in whatever order they come
            weight.data = (30 ** (weight.ndim > 1) * torch.randn(weight.shape)).to(dtype)
    torch.testing.assert_close(again(x), layer(x))
    if name == "qr":
        return  # its inverse in bfloat16 has no digits to spare
    units = torch.eye(60).reshape(60, 3, 5, 4)
    bounded = again if name != "chain" else again.get_submodule("1")
    matrix = (bounded(units)[0] - bounded(0 * units)[0]).detach().reshape(60, 60)
    assert 1 / torch.linalg.svdvals(matrix)[-1] < 4.001
    with pytest.raises(ValueError, match=r"expected 4\.0, by which conv is bounded, got 5"):
        invconv_torch.InvertibleModule(bounded.operator(), max_gain=5.0)


def test_a_bound_travels_with_copies_and_not_with_other_arrays(tmp_path: Path) -> None:
    conv = ic.bounded(ic.PeriodicConv.init(2, rng=np.random.default_rng(0)), 3.0)
    again = ic.bounded(conv, 2.0)
    copies = pickle.loads(pickle.dumps(conv)), copy.deepcopy(conv), conv.asarrays(torch.zeros(1))
    for kept in copies:
        assert describe(kept, {})["max_gain"] == 3.0
    for other in (conv.replace(), conv.replace(bias=np.zeros(2)), conv.transpose()):
        assert "max_gain" not in describe(other, {})
    ic.save(again, tmp_path / "conv.safetensors")
    loaded = ic.load(tmp_path / "conv.safetensors")
    np.testing.assert_array_equal(loaded.parameters()["kernel"], again.kernel)
    ic.save(ic.Chain([ic.ActNorm.init(2), ic.Inverse(conv)]), tmp_path / "conv.safetensors")
    loaded = ic.load(tmp_path / "conv.safetensors", like=jnp.zeros(1, "float32"))
    assert describe(loaded, {})["parts"]["1"]["parts"]["conv"]["max_gain"] == 3.0
