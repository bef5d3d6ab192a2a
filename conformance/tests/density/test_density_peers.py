"""Real NVP and the masked autoregressive flow against dense Jacobians; words of a user's rows."""

import os
import sys
from pathlib import Path

import pytest
import torch

from invconv_benchmarks.density.compare import result
from invconv_benchmarks.density.recipes.recipe import load_preset
from tests.density.test_density_data import RNG
from tests.flows.small_flows import jacobians, moved
from tests.programs import python


@pytest.mark.parametrize("mixing", ["real_nvp", "maf"])
def test_densities_are_those_of_the_dense_jacobian_and_images_come_back(mixing: str) -> None:
    recipe = load_preset("digits").recipe(mixing, depth=3)
    flow, x = moved(recipe.flow((3, 4, 4))), torch.from_numpy(RNG.uniform(0, 1, (2, 3, 4, 4)))
    for jacobian in jacobians(flow, x):
        assert (jacobian.abs() > 1e-8).double().mean() > 0.5  # all numbers meet
    for name, layer in flow.layers.items():
        out, log_det = layer(x)
        torch.testing.assert_close(layer.inverse(out)[1], -log_det, msg=name)
        x = out[0] if isinstance(out, tuple) else out


OWN = """
import numpy as np
from invconv.extend import LogScale, Pointwise, array

class Stretched(Pointwise, mixing="stretched"):
    logs: object = array("C")

    def factors(self):
        return [(LogScale(), self.logs)]

    def factors_vjp(self, bars):
        return {"logs": bars[0]}

    @classmethod
    def drawn(cls, channels, rng):
        return {"logs": np.zeros(channels)}
"""


@pytest.mark.slow
def test_a_row_of_every_kind_of_word_and_of_a_class_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own_rows.py").write_text(OWN)
    words = ["plain", "householder", "emerging_circulant", "own_rows:stretched", "real_nvp", "maf"]
    options = ["--preset", "digits", "--quick", "--steps", "3", "--mixings", ",".join(words)]
    paths = os.pathsep.join((str(tmp_path), *sys.path))
    command = ["-m", "invconv", "density", "compare", *options, "--out", "runs"]
    done = python(*command, cwd=tmp_path, PYTHONPATH=paths)
    rows = result.read(tmp_path / "runs" / "result.json")["rows"]
    assert {row["mixing"] for row in rows} == set(words)
    assert all(row["bits"]["mean"] < 9 for row in rows)
    assert "Real NVP" in done.stdout
