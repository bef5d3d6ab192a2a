"""Inverses with float64 inside, against extended precision."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.studies import precision
from invconv_conformance.truth.substitution import substitute

jax.config.update("jax_enable_x64", True)

GRID = (24, 24)
EPS = float(np.finfo(np.float32).eps)
LIKES: dict[str, Any] = {
    "numpy": np.empty(0, np.float32),
    "torch": torch.empty(0),
    "jax": jax.numpy.empty(0, "float32"),
}


def hard() -> tuple[ic.AutoregressiveConv, Any, Any]:
    """Return a convolution, a y that float32 holds exactly, and the solution."""
    rng = np.random.default_rng(0)
    kernel = (0.25 * rng.standard_normal((4, 4, 2, 2))).astype(np.float32).astype(np.float64)
    kernel[:, :, 0, 0] = np.tril(kernel[:, :, 0, 0], -1) + np.diag([1.0, 0.5, 1.0, 4.0])
    conv = ic.AutoregressiveConv(kernel.astype(np.float32))
    y = rng.standard_normal((4, *GRID)).astype(np.float32)
    host = conv.asarrays(np.empty(0))
    return conv, y, substitute(host, y.astype(np.float64))


@pytest.mark.parametrize("library", LIKES)
def test_float64_inside_leaves_only_the_rounding_of_the_result(library: str) -> None:
    conv, y, exact = hard()
    conv = conv.asarrays(LIKES[library])
    y = _like(y, library)

    def error(**settings: Any) -> float:
        prepared = conv.prepare(GRID, check=False, **settings)
        x, log_det = prepared.inverse_and_log_det(y)
        assert x.dtype == log_det.dtype == y.dtype
        return float(np.abs(to_numpy(x) - exact).max() / np.abs(exact).max())

    plain = error()
    assert error(precision="float64") < EPS
    assert plain > 2 * error(precision="float64")


def _like(y: Any, library: str) -> Any:
    return {"numpy": np.asarray, "torch": torch.as_tensor, "jax": jax.numpy.asarray}[library](y)


def test_biases_are_kept_and_steps_too() -> None:
    conv, y, _ = hard()
    bias = np.arange(4, dtype=np.float32)
    chain = ic.Chain([conv.replace(bias=bias), ic.ActNorm(bias / 4, bias)])
    expected = chain.asarrays(np.empty(0)).inverse(y.astype(np.float64))
    x = chain.prepare(GRID, check=False, precision="float64").inverse(y)
    assert np.abs(x - expected).max() / np.abs(expected).max() < EPS


def test_the_plan_says_float64_where_that_is_wider() -> None:
    conv, _, _ = hard()
    assert conv.prepare(GRID, precision="float64").plan["precision"] == "float64"
    wide = conv.asarrays(np.empty(0))
    assert "precision" not in wide.prepare(GRID, precision="float64").plan


def test_gradients_pass_through() -> None:
    conv, y, _ = hard()
    wide = conv.asarrays(torch.empty(0, dtype=torch.float64))
    results = []
    for there, settings in (
        (conv.asarrays(torch.empty(0)), {"precision": "float64"}),
        (wide, {}),
    ):
        weights = {n: p.clone().requires_grad_() for n, p in there.parameters().items()}
        data = torch.as_tensor(y, dtype=there.kernel.dtype).requires_grad_()
        x = there.replace(**weights).prepare(GRID, check=False, **settings).inverse(data)
        (x / x.detach().abs().max()).square().sum().backward()
        results.append((data.grad.double(), weights["kernel"].grad.double()))
    for got, expected in zip(*results, strict=True):
        assert (got - expected).norm() < 1e-4 * expected.norm()


def test_half_types_go_in_and_out() -> None:
    conv, y, _ = hard()
    half = conv.asarrays(np.empty(0, np.float16))
    x = half.prepare(GRID, check=False, precision="float64").inverse(y.astype(np.float16))
    assert x.dtype == np.float16
    exact = substitute(half.asarrays(np.empty(0)), y.astype(np.float16).astype(np.float64))
    kept = np.abs(exact) < 6e4
    assert np.abs(x[kept] - exact[kept]).max() <= 6e4 * 2.0**-11


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_what_is_no_setting_is_refused(precision: str) -> None:
    conv, _, _ = hard()
    with pytest.raises(ValueError, match=f"precision: expected 'float64', got '{precision}'"):
        conv.prepare(GRID, precision=precision)


def test_jax_without_float64_says_so() -> None:
    code = """if True:
        import jax, invconv, invconv_jax
        conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 2)
        try:
            conv.prepare((4, 4), precision="float64")
        except ValueError as error:
            assert "jax_enable_x64" in str(error)
            print("refused")
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


def test_the_study_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        name: (build, sizes[:1], strengths[::3])
        for name, (build, sizes, strengths) in precision.FAMILIES.items()
    }
    monkeypatch.setattr(precision, "FAMILIES", few)
    found = list(precision.points())
    assert len(found) == 2 * len(precision.METHODS) * sum(len(s) for _, _, s in few.values())
    assert max(precision.share([p for p in found if p.condition > 2]).values()) < 1
    # so near the identity the bound is one rounding, and a sum may have two
    assert max(precision.share(found).values()) < 2
