"""Presets say what the paper says, and what is wrong in one is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from invconv_benchmarks.density.models.architecture import MIXINGS
from invconv_benchmarks.density.recipes.preset import load_preset, preset_names
from invconv_benchmarks.density.recipes.recipe import Recipe, Training

# arXiv 1901.11137, the tables: levels, depth, and bits/dim of Real NVP, plain, periodic, emerging
PAPER = {
    "galaxy": (2, 8, None, "2.03 ± .026", "1.98 ± .003", "1.98 ± .007"),
    "cifar10": (3, 32, "3.51", "3.36 ± .002", None, "3.34 ± .002"),
    "cifar10-depth-8": (3, 8, None, "3.46 ± .005", None, "3.43 ± .004"),
    "cifar10-depth-4": (3, 4, None, "3.56 ± .008", None, "3.51 ± .001"),
    "imagenet32": (3, 48, "4.28", "4.09", None, "4.09"),
    "imagenet32-depth-8": (3, 8, None, "4.18 ± .003", None, "4.16 ± .004"),
    "imagenet32-depth-4": (3, 4, None, "4.28 ± .008", None, "4.25 ± .002"),
    "imagenet64": (4, 48, "3.98", "3.81", None, "3.81"),
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_of_the_papers_tables(name: str) -> None:
    levels, depth, *numbers = PAPER[name]
    preset = load_preset(name)
    architecture = preset.recipe("emerging").architecture
    assert (architecture.levels, architecture.depth, architecture.width) == (levels, depth, 512)
    assert architecture.scale_floor == 0
    named = dict(zip(("real_nvp", "plain", "periodic", "emerging"), numbers, strict=True))
    assert {k: v for k, v in preset.paper.items() if k != "of"} == {
        k: v for k, v in named.items() if v
    }
    training = preset.recipe("emerging").training
    assert training.learning_rate == 1e-3
    assert training.batch == (64 if name == "imagenet64" else 256)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_one_for_every_mixing_layer(name: str) -> None:
    recipes = [load_preset(name).recipe(mixing, seed=3) for mixing in MIXINGS]
    same = [dataclasses.replace(r.architecture, mixing="plain") for r in recipes]
    assert len(set(same)) == 1
    assert len({r.training for r in recipes}) == 1
    for recipe in recipes:
        assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_changes_replace_a_presets_values() -> None:
    preset = load_preset("cifar10")
    recipe = preset.recipe("qr", 1, steps=7, width=64, learning_rate=None, data="photos")
    assert (recipe.training.steps, recipe.training.epochs) == (7, 0)
    assert recipe.architecture.width == 64
    assert recipe.training.learning_rate == 1e-3
    assert recipe.data == "photos"


def test_epochs_and_warm_up_in_steps() -> None:
    training = Training(batch=32, learning_rate=0.5, epochs=3, warm_up_epochs=1)
    assert training.length(100) == 10  # 300 images
    assert [training.warm_up(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert Training(batch=1, learning_rate=0.5, steps=3).warm_up(0, 100) == 1


GOOD = """
data = "digits"
[architecture]
levels = 1
depth = 1
width = 4
[training]
batch = 4
learning_rate = 1e-2
steps = 2
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("levels = 1", "level = 1", "architecture: expected mixing, levels"),
        ("depth = 1", "depth = 0", "depth: "),
        ("batch = 4", "batch = 4.5", "batch: expected an integer of at least 1, got 4.5"),
        ("batch = 4", "batch = 4\nspeed = 3", "training: expected batch.*speed"),
        ("batch = 4", "", "training: expected batch, .*got learning_rate"),
        ("steps = 2", "", "expected steps or epochs, one of the two, got 0 and 0"),
        ("steps = 2", "steps = 2\nepochs = 1", "expected steps or epochs, one of the two"),
        ("1e-2", "0.0", "learning_rate: expected a number above 0 and below 1, got 0.0"),
        ("1e-2", '"fast"', "learning_rate: expected a number above 0 and below 1, got 'fast'"),
        ("steps = 2", "steps = 2\naverage = 1", "average: expected a number of at least 0"),
        ("steps = 2", 'steps = 2\nprecision = "int8"', "precision: expected one of float32"),
        ("[training]", "[training", "own.toml: no TOML"),
        ("[training]", "[exercise]", "own.toml: expected .*training.*got .*exercise"),
    ],
)
def test_wrong_presets(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    assert load_preset(str(path)).recipe("plain").training.steps == 2
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_preset(str(path))


def test_unknown_presets() -> None:
    with pytest.raises(ValueError, match=r"--preset: expected one of cifar10, .*got 'mnist'"):
        load_preset("mnist")
    with pytest.raises(ValueError, match=r"there is no file nowhere\.toml"):
        load_preset("nowhere.toml")
