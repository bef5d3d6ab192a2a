"""The user's own images: layouts of files, and files that are not what they should be."""

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invconv._cli import main
from invconv_benchmarks.density.data import LAYOUTS, load
from tests.density.test_density_data import numbers


def picture(path: Path, height: int, width: int) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numbers(height, width, 3)
    Image.fromarray(pixels).save(path)
    return pixels


def cifar(folder: Path, name: str, row: int, content: bytes) -> None:
    """Write files of zeros, and one row of one file."""
    for other in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        with open(folder / other, "wb") as file:
            file.truncate(10_000 * 3073)
            file.seek(3073 * row)
            file.write(content * (name == other))


def test_cifar10_in_its_binary_version(tmp_path: Path) -> None:
    row = numbers(3073)
    row[0] = 9
    cifar(tmp_path, "data_batch_2.bin", 5, row.tobytes())
    found = load("cifar10", tmp_path)
    assert len(found) == 50_000
    assert found.test.shape == (10_000, 3, 32, 32)
    red, green, blue = row[1:].reshape(3, 1024)
    for plane, values in zip(found.tile(10_005), (red, green, blue), strict=True):
        np.testing.assert_array_equal(plane.ravel(), values)


def test_cifar10_of_the_wrong_size_or_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_batch_1.bin.*cifar-10-binary"):
        load("cifar10", tmp_path)
    cifar(tmp_path, "test_batch.bin", 0, b"\x80")
    with pytest.raises(ValueError, match=r"test_batch.bin: expected .* a label from 0 to 9"):
        load("cifar10", tmp_path)
    os.truncate(tmp_path / "data_batch_3.bin", 10_000 * 3073 - 1)
    with pytest.raises(ValueError, match=r"data_batch_3.bin: expected 10000 times.*30729999"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_path_says_where_the_data_come_from(name: str, tmp_path: Path) -> None:
    for path in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="--path: ") as caught:
            load(name, path)
        assert LAYOUTS[name] in str(caught.value)


def test_a_folder_of_images(tmp_path: Path) -> None:
    large = picture(tmp_path / "train" / "a.png", 40, 70)
    small = picture(tmp_path / "train" / "b.png", 32, 32)
    test = picture(tmp_path / "test" / "c.png", 64, 33)
    (tmp_path / "train" / ".hidden.png").write_text("no image")
    (tmp_path / "train" / "notes.txt").write_text("no image")
    found = load("folder", tmp_path)
    assert len(found) == 9 * 39 + 1
    np.testing.assert_array_equal(found.tile(39 + 2), large[1:33, 2:34].transpose(2, 0, 1))
    np.testing.assert_array_equal(found.tile(9 * 39), small.transpose(2, 0, 1))
    assert found.test.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(found.test[1], test[32:, :32].transpose(2, 0, 1))


def png(size: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(numbers(size, size, 3)).save(content, "PNG")
    return content.getvalue()


def zipped(path: Path, *names: str, size: Any = 32, **more: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in ({name: png(size) for name in names} | more).items():
            file.writestr(name, content)
    return path


def test_a_zip_of_images_is_the_folder_that_it_holds(tmp_path: Path) -> None:
    names = [f"train/some-{n:02}.png" for n in range(21)] + ["test/a.png", "test/b.png"]
    path = zipped(tmp_path / "images.zip", *names)
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "images")
    found, folder = load("folder", path), load("folder", tmp_path / "images")
    assert (len(found), len(found.held_out("validation")), len(found.test)) == (19, 2, 2)
    assert found.fingerprint == folder.fingerprint
    with Image.open(tmp_path / "images" / "train" / "some-19.png") as image:
        tenth = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(found.held_out("validation")[1], tenth)


GOOD = ("train/a.png", "test/b.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b""), "bad.zip: the zip is damaged, encrypted or none"),
        (lambda p: p.write_bytes(zipped(p, *GOOD).read_bytes()[:-40]), "bad.zip: the zip is damag"),
        (lambda p: zipped(p, "train/a.png"), "there are not enough images in .*bad.zip"),
        (lambda p: zipped(p, *GOOD, "c.png"), "bad.zip: expected images .* got 'c.png'"),
        (lambda p: zipped(p, *GOOD, "train/../c.png"), "bad.zip: expected .* got 'train/../c.png'"),
        (lambda p: zipped(p, *GOOD, **{"train/c.pkl": b""}), "bad.zip: expected .*'train/c.pkl'"),
        (lambda p: zipped(p, *GOOD, **{"train/c.png": b"?"}), "bad.zip/train/c.png: not an image"),
        (lambda p: zipped(p, *GOOD, size=31), "bad.zip/test/b.png: expected at least 32 x 32"),
        (
            lambda p: zipped(p, *GOOD, **{"train/c.bmp": bytes(2**26 + 1)}),
            "bad.zip/train/c.bmp: expected at most 67,108,864 bytes",
        ),
        (
            lambda p: zipped(p, *GOOD, **{"train/c.png": png(33)}),
            "bad.zip/train/c.png: expected 32 x 32 pixels.*got 33 x 33",
        ),
    ],
)
def test_a_zip_that_is_broken_or_mixed_is_named_and_nothing_trains(
    make: Any, message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    make(tmp_path / "bad.zip")
    monkeypatch.chdir(tmp_path)
    assert main(["density", "compare", "--quick", "--data", "bad.zip"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


@pytest.mark.parametrize("parts", [("train", "test"), ("", "")])
def test_useless_images_are_named(parts: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    whole = picture(tmp_path / parts[0] / "z.png", 40, 40)
    picture(tmp_path / parts[1] / "y.png", 32, 32)
    content = (tmp_path / parts[0] / "z.png").read_bytes()
    (tmp_path / parts[0] / "0.png").write_bytes(content[: len(content) // 2])
    (tmp_path / parts[0] / "1.png").write_bytes(b"no image at all")
    picture(tmp_path / parts[0] / "2.png", 31, 40)
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / parts[0] / "3.png")
    found = load("folder", tmp_path)
    assert (len(found), len(found.test)) == (9 * 9, 1)
    np.testing.assert_array_equal(found.tile(0), whole[:32, :32].transpose(2, 0, 1))
    said = capsys.readouterr().err
    for message in (
        f"skipped 4 of {5 if parts[0] else 6} files",
        "0.png: the image is damaged or cut off",
        "1.png: not an image of PNG, JPEG",
        "2.png: expected at least 32 x 32 pixels",
        "3.png: expected 8 bits a colour",
    ):
        assert message in said


def test_imagenet_as_png_files_and_as_npz_files(tmp_path: Path) -> None:
    pixels = [picture(tmp_path / "train_32x32" / f"{n}.png", 32, 32) for n in range(3)]
    picture(tmp_path / "valid_32x32" / "0.png", 32, 32)
    found = load("imagenet32", tmp_path)
    np.testing.assert_array_equal(found.tile(2), pixels[2].transpose(2, 0, 1))
    picture(tmp_path / "train_32x32" / "1.png", 32, 33)
    with pytest.raises(ValueError, match=r"1.png: expected 32 x 32 pixels.*got 33 x 32"):
        load("imagenet32", tmp_path)
    other = tmp_path / "npz"
    other.mkdir()
    rows = numbers(4, 3 * 64 * 64)
    np.savez(other / "train_data_batch_1.npz", data=rows[:3], labels=np.arange(3))
    np.savez(other / "val_data.npz", data=rows, labels=np.arange(4))
    with pytest.raises(ValueError, match=r"train_data_batch_2.npz.*; imagenet64 needs"):
        load("imagenet64", other)
    for n in range(2, 11):
        np.savez(other / f"train_data_batch_{n}.npz", data=rows[3:], labels=np.arange(1))
    found = load("imagenet64", other)
    np.testing.assert_array_equal(found.tile(3).ravel(), rows[3])
    with pytest.raises(ValueError, match=r"expected bytes \(N, 3072\), got uint8.*12288"):
        load("imagenet32", other)
    np.savez(other / "train_data_batch_3.npz", data=np.array([{"a pickle": print}], dtype=object))
    with pytest.raises(ValueError, match=r"batch_3\.npz: no npz file with an array"):
        load("imagenet64", other)
