"""Images for training and tests: the batches of a run, and data sets by their names.

The images of a step are a function of the seed and the step alone: no checkpoint has to keep a
generator's state, and every model sees the same images, in one process or in several.
Nothing is downloaded. Images that packages ship are split by region into parts a tile's width
apart, so that none holds the edge of an object of another.
"""

import hashlib
import io
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from invconv.arrays.errors import CommandError
from invconv_benchmarks.report.figures import tiles

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

Part: TypeAlias = Literal["validation", "test"]

_FLIPS, _SHIFTS, _NOISE, _ORDER, _TEST, _VALIDATION = range(6)  # of the random generators
TILE = 32
_JPEG = 8  # tiles off the grid of a JPEG's blocks cost .05 bits/dim, as much as a layer may gain

LAYOUTS = {
    "cifar10": "the binary version of CIFAR-10, cifar-10-binary.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html, unpacked: data_batch_1.bin to data_batch_5.bin "
    "and test_batch.bin, 10000 times 3073 bytes each",
    "imagenet32": "the small ImageNet of van den Oord et al. (2016), which the paper used, "
    "unpacked: train_32x32/ and valid_32x32/ with PNG files; or, of another downsampling, whose "
    "bits/dim are others, train_data_batch_1.npz to _10.npz and val_data.npz of "
    "https://image-net.org (Chrabaszcz et al., 2017)",
    "imagenet64": "as imagenet32, with train_64x64/ and valid_64x64/, or npz files of 64 x 64",
    "galaxy": "the galaxies of https://github.com/SpaceML/merger_transfer_learning, which the "
    "paper used: the folder galaxy_mergers/noninteracting with training/, validation/ and test/",
    "folder": "a folder or zip: train/ and test/ with images (a tile of a larger one is cut at "
    "random), and perhaps validation/, without which every tenth image of train/, of many about "
    "400, is to choose learning rates by; or a folder with images alone, every tenth of which is "
    "for the test",
}

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits at most
_PARTS = ("train", "validation", "test")
_MOST_BYTES, _MOST_NUMBERS = 2**26, 2**33  # of one file in a zip; of all its images together
_OF_ZIPS = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, UnicodeDecodeError)
_MEASURED = 400  # at most so many images choose learning rates, since they are measured often
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CIFAR_ROWS, _CIFAR_ROW = 10_000, 1 + 3 * 32 * 32


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training images of any size, from which tiles are cut, and tiles that are held out."""

    name: str
    train: Sequence[Bytes] | Bytes  # images (C, H, W), of one or of many sizes
    test: Bytes  # tiles (N, C, S, S) that models are reported on
    validation: Bytes | None = None  # tiles to choose by, of other images or another region
    grid: int = 1  # tiles are cut at multiples of so many pixels
    # tiles are flipped at random, or brought into one of the square's eight positions
    symmetry: Literal["none", "horizontal", "all"] = "none"
    shift: int = 0  # tiles are moved by up to so many pixels each way, with edges repeated

    @property
    def watched(self) -> Part:
        """The part that learning curves show: the test's where there is no validation part."""
        return "test" if self.validation is None else "validation"

    def held_out(self, part: Part) -> Bytes:
        """Return the tiles of a part; without a validation part raise CommandError."""
        if part == "test":
            return self.test
        if self.validation is None:
            raise CommandError(f"--data {self.name}: it has no validation part to choose by")
        return self.validation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        channels, height, width = self.test.shape[1:]
        return channels, height, width

    @cached_property
    def _ends(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The number of places for a tile in the first images, for each number of them."""
        sizes = np.asarray([image.shape[1:] for image in self.train])
        across = (sizes - self.image_shape[1]) // self.grid + 1
        return np.asarray(np.cumsum(across.prod(axis=1)), dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of places from which a training tile can be cut: an epoch."""
        return int(self._ends[-1])

    def tile(self, place: int) -> Bytes:
        """Return the training tile at a place, (C, S, S)."""
        image = int(np.searchsorted(self._ends, place, side="right"))
        region, side = self.train[image], self.image_shape[1]
        columns = (region.shape[2] - side) // self.grid + 1
        place -= int(self._ends[image - 1]) if image else 0
        top, left = (self.grid * n for n in divmod(place, columns))
        return region[:, top : top + side, left : left + side]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of every image and setting: a run goes on only with the same data."""
        settings = repr((self.grid, self.symmetry, self.shift, self.test.shape))
        digest = hashlib.blake2b(settings.encode(), digest_size=16)
        validation = () if self.validation is None else (self.validation,)
        for region in (*self.train, self.test, *validation):
            digest.update(repr(region.shape).encode())
            digest.update(np.ascontiguousarray(region).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Batches:
    """Batch and noise of each step of a run; every tile is seen once an epoch, in a new order."""

    data: Dataset
    size: int  # images per step
    seed: int

    def images(self, step: int, part: slice = slice(None)) -> Bytes:
        """Return the tiles of a step, (B, C, S, S); of a process, its part of them."""
        count = len(self.data)
        seen = range(step * self.size, (step + 1) * self.size)
        places = [int(_order(count, self.seed, n // count)[n % count]) for n in seen]
        flips = self._numbers(_FLIPS, step).integers(8, size=self.size)
        ends = -self.data.shift, self.data.shift + 1
        shifts = self._numbers(_SHIFTS, step).integers(*ends, size=(self.size, 2))
        chosen = list(zip(places, flips, shifts, strict=True))[part]
        return np.stack([self._changed(self.data.tile(p), int(f), s) for p, f, s in chosen])

    def noise(self, step: int, part: slice = slice(None)) -> Floats:
        """Return the noise of a step in [0, 1), of the shape of its images."""
        shape = (self.size, *self.data.image_shape)
        return np.asarray(self._numbers(_NOISE, step).random(shape, dtype=np.float32))[part]

    def _numbers(self, purpose: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, step])

    def _changed(self, tile: Bytes, flip: int, shift: Any) -> Bytes:
        if most := self.data.shift:
            side, (top, left) = tile.shape[1], (most + int(s) for s in shift)
            wide = np.pad(tile, ((0, 0), (most, most), (most, most)), mode="edge")
            tile = wide[:, top : top + side, left : left + side]
        if flip & 1 and self.data.symmetry != "none":
            tile = tile[:, :, ::-1]
        if self.data.symmetry == "all":
            tile = tile[:, ::-1] if flip & 2 else tile
            tile = tile.transpose(0, 2, 1) if flip & 4 else tile
        return tile


def noise_of(data: Dataset, part: Part = "test") -> Floats:
    """Return noise for all tiles of a part, the same for every model."""
    numbers = np.random.default_rng([0, _TEST if part == "test" else _VALIDATION])
    return np.asarray(numbers.random(data.held_out(part).shape, dtype=np.float32))


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def hubble() -> Dataset:
    """Return the Hubble deep field (NASA, public domain); its left two thirds are to train on."""
    from skimage.data import hubble_deep_field

    image = planes(hubble_deep_field())
    validation, test = (tiles(image[:, :, at], TILE) for at in (slice(672, 768), slice(800, None)))
    train = [image[:, :, :640]]
    return Dataset("hubble", train, test, validation, grid=_JPEG, symmetry="horizontal")


def photos() -> Dataset:
    """Return photographs; of each, the right fifth is for the test, a tenth for validation."""
    train, validation, test = [], [], []
    for photograph in _photographs():
        image = planes(photograph)
        columns = image.shape[2] // TILE
        first = TILE * (columns - columns // 5)
        middle = first - TILE * (1 + columns // 10)
        train.append(image[:, :, : middle - TILE])
        validation.append(tiles(image[:, :, middle : first - TILE], TILE))
        test.append(tiles(image[:, :, first:], TILE))
    parts = np.concatenate(test), np.concatenate(validation)
    return Dataset("photos", train, *parts, grid=_JPEG, symmetry="horizontal")


def _photographs() -> Iterator[Any]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        yield getattr(data, name)()
    yield data.stereo_motorcycle()[0]  # the other view shows the same, further to the left
    yield from load_sample_images().images


def digits() -> Dataset:
    """Return scikit-learn's handwritten digits, 8 x 8 in 17 shades of grey: small, for tests."""
    from sklearn.datasets import load_digits

    images = (load_digits().images * 15).astype(np.uint8)[:, None]
    return Dataset("digits", images[:1300], images[1500:], images[1300:1500])


def planes(image: Any) -> Bytes:
    """Turn (H, W, C) into (C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


SHIPPED = {"hubble": hubble, "photos": photos, "digits": digits}
NAMES = (*SHIPPED, *LAYOUTS)


def load(name: str, path: Path | None = None) -> Dataset:
    """Return a data set by its name; errors say where missing or wrong files come from."""
    if name in SHIPPED:
        if path is not None:
            raise CommandError(f"--path: {name} comes with a package and takes no path")
        return SHIPPED[name]()
    if name not in LAYOUTS:
        raise CommandError(f"--data: expected one of {', '.join(NAMES)}, got {name!r}")
    if path is None or not (path.is_dir() or (name == "folder" and path.is_file())):
        there = "none was given" if path is None else f"there is no {path}"
        raise CommandError(f"--path: {name} needs {LAYOUTS[name]}; {there}")
    try:
        return _LOADERS[name](path)
    except FileNotFoundError as error:
        raise CommandError(f"--path: {error}; {name} needs {LAYOUTS[name]}") from None


def _cifar10(path: Path) -> Dataset:
    train = [_cifar_file(path / f"data_batch_{n}.bin") for n in range(1, 6)]
    test = _cifar_file(path / "test_batch.bin")
    # as the authors move and flip them
    return Dataset("cifar10", np.concatenate(train), test, symmetry="horizontal", shift=3)


def _cifar_file(path: Path) -> Bytes:
    rows = np.fromfile(path, np.uint8)
    if rows.size != _CIFAR_ROWS * _CIFAR_ROW or rows[::_CIFAR_ROW].max() > 9:
        raise CommandError(
            f"{path}: expected {_CIFAR_ROWS} times a label from 0 to 9 and an image of 3 x 32 x 32 "
            f"bytes, got {rows.size} bytes of another kind, or cut off"
        )
    return rows.reshape(_CIFAR_ROWS, _CIFAR_ROW)[:, 1:].reshape(_CIFAR_ROWS, 3, 32, 32)


def _imagenet(path: Path, side: int) -> Dataset:
    name = f"imagenet{side}"
    folders = [path / f"{part}_{side}x{side}" for part in ("train", "valid")]
    if all(folder.is_dir() for folder in folders):
        read = partial(_read, side=side, exactly=True)
        train, test = (np.stack([*map(read, _images_in(folder))]) for folder in folders)
        return Dataset(name, train, test)
    batches = [path / f"train_data_batch_{n}.npz" for n in range(1, 11)]
    train = np.concatenate([_npz(batch, side) for batch in batches])
    return Dataset(name, train, _npz(path / "val_data.npz", side))


def _npz(path: Path, side: int) -> Bytes:
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            rows = np.asarray(file["data"])
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise whatever NumPy, zipfile and zlib raise
        raise CommandError(f"{path}: no npz file with an array 'data': {error}") from None
    if rows.dtype != np.uint8 or rows.shape[1:] != (3 * side * side,):
        expected = f"expected bytes (N, {3 * side * side})"
        raise CommandError(f"{path}: {expected}, got {rows.dtype} of shape {rows.shape}")
    return rows.reshape(-1, 3, side, side)


def _galaxy(path: Path) -> Dataset:
    train, validation, test = (
        [_galaxy_tile(_read(image, 64)) for image in _images_in(path / part)]
        for part in ("training", "validation", "test")
    )
    # moved, flipped and turned about as the authors do, see `models.build`
    return Dataset("galaxy", np.stack(train), np.stack(validation + test), symmetry="all", shift=3)


def _galaxy_tile(image: Bytes) -> Bytes:
    """Return 32 x 32 pixels, as the authors do, edges that fade to black included."""
    from skimage.transform import resize

    small = resize(np.moveaxis(image, 0, -1), (64, 64), mode="constant", anti_aliasing=True)
    small = np.minimum(np.floor(256 * small), 255).reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    return np.moveaxis(np.floor(small).astype(np.uint8), -1, 0)


def _folder(path: Path) -> Dataset:
    if path.is_file():
        train, validation, test = _zipped(path)
    elif (path / "train").is_dir() and (path / "test").is_dir():
        folders = [path / part for part in _PARTS]
        train, validation, test = (_read_usable(f, TILE) if f.is_dir() else [] for f in folders)
    else:
        images = _read_usable(path, TILE)
        test, train = images[::10], [image for i, image in enumerate(images) if i % 10]
        validation = []
    if not train or not test:
        raise FileNotFoundError(f"there are not enough images in {path}")
    if not validation:
        every = max(10, len(train) // _MEASURED)
        validation = train[every - 1 :: every]
        train = [image for i, image in enumerate(train, 1) if i % every]
    held_out = _cut(validation) if validation else None
    return Dataset(path.stem, train, _cut(test), held_out, symmetry="horizontal")


def _cut(images: list[Bytes]) -> Bytes:
    return np.concatenate([tiles(image, TILE) for image in images])


def _zipped(path: Path) -> list[list[Bytes]]:
    """Return the images of each part in a zip, which holds images of one size and nothing else."""
    parts: dict[str, list[Bytes]] = {part: [] for part in _PARTS}
    try:
        with zipfile.ZipFile(path) as file:
            files = (e for e in file.infolist() if not e.filename.endswith("/"))
            entries = sorted(files, key=lambda e: e.filename)
            for entry in entries:
                _require_safe(path, entry)
            for entry in entries:
                image = _read(path / entry.filename, TILE, content=io.BytesIO(file.read(entry)))
                first = next((images[0] for images in parts.values() if images), image)
                most = min(_MOST_NUMBERS // len(entries), first.size)
                if image.shape != first.shape or image.size > most:
                    height, width = first.shape[1:]
                    raise CommandError(
                        f"{path / entry.filename}: expected {width} x {height} pixels, as in the "
                        f"first of {len(entries)} images of at most {_MOST_NUMBERS:,} numbers, got "
                        f"{image.shape[2]} x {image.shape[1]}; unpack it: a folder may have both"
                    )
                parts[entry.filename.partition("/")[0]].append(image)
    except _OF_ZIPS as error:
        raise CommandError(f"{path}: the zip is damaged, encrypted or none: {error}") from None
    return list(parts.values())


def _require_safe(path: Path, entry: zipfile.ZipInfo) -> None:
    """Raise unless a zip's entry has the name of an image in a part, and a sensible size."""
    *folders, last = entry.filename.split("/")
    strange = {"", ".", ".."} & {*folders, last} or "\\" in entry.filename
    if strange or folders[:1] not in [[part] for part in _PARTS] or not _is_image(Path(last)):
        expected = f"images ({', '.join(_SUFFIXES)}) in {', '.join(_PARTS)} and nothing else"
        raise CommandError(f"{path}: expected {expected}, got {entry.filename!r}")
    if entry.file_size > _MOST_BYTES or entry.compress_type not in _COMPRESSIONS:
        expected = f"at most {_MOST_BYTES:,} bytes, stored or deflated"
        got = f"{entry.file_size:,}, by method {entry.compress_type}"
        raise CommandError(f"{path / entry.filename}: expected {expected}, got {got}")


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(filter(_is_image, folder.iterdir())) if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"there are no images in {folder}")
    return paths


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.name[0] != "."


def _read_usable(folder: Path, smallest: int) -> list[Bytes]:
    """Read a folder's images; standard error names the files that cannot be used."""
    images: list[Bytes] = []
    unusable: list[str] = []
    for path in (paths := _images_in(folder)):
        try:
            images.append(_read(path, smallest))
        except CommandError as error:
            unusable.append(str(error))
    if unusable:
        skipped = f"skipped {len(unusable)} of {len(paths)} files:"
        print(skipped, *unusable, sep="\n  ", file=sys.stderr)
    return images


def _read(path: Path, side: int, *, exactly: bool = False, content: Any = None) -> Bytes:
    """Read an RGB image, (3, H, W), of at least or exactly so many pixels a side.

    For a zip ``content`` is a file in memory, and ``path`` is for messages alone.
    """
    try:
        with Image.open(content or path, formats=_FORMATS) as image:
            width, height = image.size
            if min(width, height) < side or (exactly and max(width, height) > side):
                least = f"{'' if exactly else 'at least '}{side} x {side}"
                raise CommandError(f"expected {least} pixels, got {width} x {height}")
            if image.mode not in _MODES:
                raise CommandError(f"expected 8 bits a colour, got Pillow's mode {image.mode!r}")
            return planes(np.asarray(image.convert("RGB")))
    except UnidentifiedImageError:
        raise CommandError(f"{path}: not an image of {', '.join(_FORMATS)}") from None
    except (ValueError, Image.DecompressionBombError) as error:
        raise CommandError(f"{path}: {error}") from None
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's for damaged files
        raise CommandError(f"{path}: the image is damaged or cut off: {error}") from None


_LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "cifar10": _cifar10,
    "imagenet32": lambda path: _imagenet(path, 32),
    "imagenet64": lambda path: _imagenet(path, 64),
    "galaxy": _galaxy,
    "folder": _folder,
}
