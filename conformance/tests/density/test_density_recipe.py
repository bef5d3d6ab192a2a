"""Presets have the paper's numbers, and errors name the wrong value in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from invconv_benchmarks.density.recipes.recipe import load_preset, presets

# arXiv 1901.11137, the tables: levels, depth, and bits/dim of plain, periodic, emerging
PAPER = {
    "galaxy": (2, 8, "2.03 ± .026", "1.98 ± .003", "1.98 ± .007"),
    "cifar10": (3, 32, "3.36 ± .002", None, "3.34 ± .002"),
    "cifar10-depth-8": (3, 8, "3.46 ± .005", None, "3.43 ± .004"),
    "cifar10-depth-4": (3, 4, "3.56 ± .008", None, "3.51 ± .001"),
    "imagenet32": (3, 48, "4.09", None, "4.09"),
    "imagenet32-depth-8": (3, 8, "4.18 ± .003", None, "4.16 ± .004"),
    "imagenet32-depth-4": (3, 4, "4.28 ± .008", None, "4.25 ± .002"),
    "imagenet64": (4, 48, "3.81", None, "3.81"),
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_of_the_papers_tables(name: str) -> None:
    levels, depth, *numbers = PAPER[name]
    preset = load_preset(name)
    recipe = preset.recipe("emerging")
    assert (recipe.levels, recipe.depth, recipe.width) == (levels, depth, 512)
    assert (recipe.scale_floor, recipe.learning_rate) == (0, 1e-3)
    assert recipe.batch == (64 if name == "imagenet64" else 256)
    assert [preset.paper.get(m) for m in ("plain", "periodic", "emerging")] == numbers


def test_every_preset_is_a_recipe_and_changes_replace_its_values() -> None:
    for name in presets():
        assert load_preset(name).recipe("emerging", 3).seed == 3
    recipe = load_preset("cifar10").recipe("qr", 1, steps=7, width=64, batch=None, data="photos")
    assert (recipe.steps, recipe.epochs, recipe.warm_up_epochs) == (7, 0, 10)
    assert (recipe.width, recipe.batch, recipe.data) == (64, 256, "photos")
    assert load_preset("galaxy").recipe("qr").epochs == 0
    changes: dict[str, Any] = {"steps": None, "epochs": 3, "warm_up_epochs": 1, "batch": 32}
    short = load_preset("digits").recipe("qr", **changes)
    assert short.length(100) == 10  # 300 images
    assert [short.warm_up(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("level = 1", "unexpected keyword argument 'level'"),
        ("batch = 4.5", "batch: expected a positive integer, got 4.5"),
        ("epochs = 1\nsteps = 2", "expected steps or epochs, one of the two"),
        (
            'learning_rate = "fast"',
            "learning_rate: expected a number from 0 to below 1, got 'fast'",
        ),
        ("average = 1", "average: expected a number from 0 to below 1, got 1"),
        ('precision = "int8"', "precision: expected 'float32' or 'bfloat16'"),
        ("[training", "own.toml: no file of TOML"),
        ('like = "mnist"', "--preset: expected one of cifar10, .*got 'mnist'"),
    ],
)
def test_wrong_presets(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('like = "digits"\nkernel_size = 5\n')
    assert load_preset(str(path)).recipe("plain").kernel_size == 5
    path.write_text(line if "like" in line else f'like = "digits"\n{line}\n')
    with pytest.raises(ValueError, match=message):
        load_preset(str(path))


def test_a_flow_that_cannot_be_is_refused() -> None:
    for changes, message in (({"depth": 0}, "depth: "), ({"levels": 4}, "multiples of 2.levels")):
        with pytest.raises(ValueError, match=message):
            load_preset("digits").recipe("plain", **changes).flow((1, 8, 8))
