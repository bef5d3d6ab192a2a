"""What density models are trained on and how: images, noise, presets with the paper's numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data as skimage_data

from invconv_benchmarks.density.data import Batches, Dataset, load, noise_of
from invconv_benchmarks.density.recipe import load_preset, presets

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def test_hubble_is_split_by_region_on_the_grid_of_its_jpeg() -> None:
    image = skimage_data.hubble_deep_field()
    found = load("hubble")
    validation = found.held_out("validation")
    assert (len(found), len(validation), len(found.test)) == (106 * 77, 81, 162)
    np.testing.assert_array_equal(found.test[7], image[32:64, 832:864].transpose(2, 0, 1))
    np.testing.assert_array_equal(validation[4], image[32:64, 704:736].transpose(2, 0, 1))
    for place in (0, 76, 77, len(found) - 1):
        top, left = 8 * (place // 77), 8 * (place % 77)
        expected = image[top : top + 32, left : left + 32].transpose(2, 0, 1)
        np.testing.assert_array_equal(found.tile(place), expected)


def test_every_tile_once_an_epoch_and_the_same_in_parts() -> None:
    regions = [numbers(1, 8, 12), numbers(1, 4, 4)]  # 2 x 3 and 1 places of 4 x 4 on a grid of 4
    data = Dataset("some", regions, numbers(2, 1, 4, 4), grid=4)
    assert len(data) == 7
    tiles = [data.tile(place).tobytes() for place in range(7)]
    batches = Batches(data, 3, seed=5)
    for epoch in range(2):
        steps = range(7 * epoch, 7 * epoch + 7)  # 21 images: three epochs
        seen = Counter(image.tobytes() for step in steps for image in batches.images(step))
        assert seen == Counter(tiles * 3)
    whole, noise = batches.images(4), batches.noise(4)
    np.testing.assert_array_equal(batches.images(4, slice(1, 3)), whole[1:])
    np.testing.assert_array_equal(batches.noise(4, slice(1, 3)), noise[1:])
    assert not np.array_equal(Batches(data, 3, seed=6).noise(4), noise)
    assert (noise >= 0).all()
    assert (noise < 1).all()


def test_tiles_are_flipped_turned_and_moved() -> None:
    tile = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    square = tile[0, 0]
    turned = {np.rot90(s, n).tobytes() for s in (square, square.T) for n in range(4)}
    for symmetry, expected in (
        ("none", {square.tobytes()}),
        ("horizontal", {square.tobytes(), square[:, ::-1].tobytes()}),
        ("all", turned),
    ):
        data = Dataset("some", tile, tile, symmetry=symmetry)  # type: ignore[arg-type]
        seen = {image.tobytes() for image in Batches(data, 200, seed=0).images(0)}
        assert seen == expected
    moved = Dataset("some", tile, tile, shift=1)
    seen = {image.tobytes() for image in Batches(moved, 400, seed=0).images(0)}
    padded = np.pad(square, 1, mode="edge")
    assert seen == {padded[i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)}


def test_noise_of_the_test_is_the_same_for_all() -> None:
    data = load("digits")
    np.testing.assert_array_equal(noise_of(data), noise_of(load("digits")))
    assert noise_of(data, "validation").shape == data.held_out("validation").shape
    assert not np.array_equal(noise_of(data)[:200], noise_of(data, "validation"))
    without = Dataset("some", data.train, data.test)
    assert (data.watched, without.watched) == ("validation", "test")
    with pytest.raises(ValueError, match="some: it has no validation part"):
        without.held_out("validation")


@pytest.mark.parametrize("name", ["hubble", "photos", "digits"])
def test_no_tile_is_in_two_parts(name: str) -> None:
    data = load(name)
    held_out = (data.test, data.held_out("validation"))
    parts = [{tile.tobytes() for tile in tiles} for tiles in held_out]
    parts.append({data.tile(place).tobytes() for place in range(len(data))})
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_the_fingerprint_sees_one_pixel() -> None:
    images = numbers(3, 1, 4, 4)
    changed = images.copy()
    changed[1, 0, 2, 2] ^= 1
    prints = {Dataset("some", train, images).fingerprint for train in (images, changed)}
    prints.add(Dataset("some", images, images, grid=2).fingerprint)
    prints |= {Dataset("some", images, images, part).fingerprint for part in (images, changed)}
    assert len(prints) == 5


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
    for bad, message in (({"depth": 0}, "depth: "), ({"levels": 4}, "multiples of 2.levels")):
        with pytest.raises(ValueError, match=message):
            load_preset("digits").recipe("plain", **bad).flow((1, 8, 8))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("level = 1", "unexpected keyword argument 'level'"),
        ("batch = 4.5", "batch: expected a positive integer, got 4.5"),
        ('learning_rate = "fast"', "_rate: expected a number from 0 to below 1, got 'fast'"),
        ("average = 1", "average: expected a number from 0 to below 1, got 1"),
        ('precision = "int8"', "precision: expected 'float32' or 'bfloat16'"),
        ('data = ["a"]', r"data: expected text, got \['a'\]"),
        ("seed = 3", "own.toml: expected --seed as an option, got it in the file"),
        ('paper = "3.3"', "own.toml: paper: expected a table by mixing layer, got 3.3"),
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
