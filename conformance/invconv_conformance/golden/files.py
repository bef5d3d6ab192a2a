"""The golden files: an archive of arrays, and JSON that says what they are."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.errors import CommandError, InvalidFileError
from invconv.files.description import Json, build, describe
from invconv.files.whole_files import replacing
from invconv_conformance.golden.format import (
    VERSIONS,
    conventions,
    file_name,
    operators,
    require,
    schema,
)
from invconv_conformance.truth.oracle import Matrix, Shape

FOLDER = Path(__file__).parent
_MOST_BYTES = 4 * 2**20  # of all arrays, so that a forged archive cannot fill the memory


@dataclass(frozen=True, eq=False)
class Golden:
    """An operator on a grid, what goes in and what comes out.

    Attributes
    ----------
    outputs : dict
        y, x2 and log_det.
    numbers : dict
        norm, inverse_norm and condition.
    tolerance : dict
        Of each output.
    """

    name: str
    conv: ic.InvertibleConv
    spatial_shape: Shape
    batch_shape: Shape
    x: Matrix
    z: Matrix
    outputs: dict[str, Matrix]
    numbers: dict[str, float]
    tolerance: dict[str, float]


def write(folder: Path, goldens: Sequence[Golden], version: int) -> list[Path]:
    """Write both files of a version, each at once or not at all, and return their paths."""
    arrays: dict[str, Matrix] = {}
    cases = [_as_json(golden, arrays) for golden in goldens]
    document = {"schema": schema(version), "conventions": conventions(version)}
    text = _dumps(document | {"operators": operators(version), "cases": cases})
    contents = {".npz": _npz(arrays), ".json": text.encode()}
    for suffix, data in contents.items():
        with replacing(folder / f"{file_name(version)}{suffix}") as part:
            part.write_bytes(data)
    return [folder / f"{file_name(version)}{suffix}" for suffix in contents]


def _as_json(golden: Golden, arrays: dict[str, Matrix]) -> Json:
    prefix = f"{golden.name}/"
    operator = describe(golden.conv, arrays, prefix)
    images = {"x": golden.x, "y": golden.outputs["y"], "z": golden.z, "x2": golden.outputs["x2"]}
    arrays |= {prefix + name: image for name, image in images.items()}
    return {
        "name": golden.name,
        "operator": operator,
        "channels": golden.conv.channels,
        "spatial_shape": list(golden.spatial_shape),
        "batch_shape": list(golden.batch_shape),
        **{name: prefix + name for name in images},
        "log_det": float(golden.outputs["log_det"]),
        **golden.numbers,
        "tolerance": golden.tolerance,
    }


def _dumps(document: Json) -> str:
    """Return strict JSON with a line a case, which keeps it small and its differences readable."""
    cases = ",\n".join(json.dumps(case, allow_nan=False) for case in document["cases"])
    head = json.dumps(document | {"cases": []}, indent=1, allow_nan=False)
    return head.replace('"cases": []', f'"cases": [\n{cases}\n]') + "\n"


def _npz(arrays: dict[str, Matrix]) -> bytes:
    """Return an archive that depends on the arrays alone: fixed order, fixed times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            kind = "<i8" if array.dtype.kind == "i" else "<f8"
            np.lib.format.write_array(member, array.astype(kind, order="C"), (1, 0), False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.compress_type = 3, zipfile.ZIP_DEFLATED
            archive.writestr(entry, member.getvalue(), compresslevel=9)
    return out.getvalue()


def versions(folder: Path = FOLDER) -> list[int]:
    """Return the versions that a folder has files of, the first one where it has none."""
    found = [v for v in VERSIONS if (folder / f"{file_name(v)}.json").exists()]
    return found or [VERSIONS[0]]


def read(folder: Path, version: int) -> list[Golden]:
    """Return what the files of a version hold.

    Raises
    ------
    ValueError
        If they are damaged, or not of this format.
    """
    name = file_name(version)
    arrays = _read_arrays(folder / f"{name}.npz")
    try:
        document = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"golden file: {name}.json cannot be read: {error}") from None
    require(isinstance(document, dict), "expected a JSON object")
    wanted, found = schema(version), document.get("schema")
    require(found == wanted, f"expected the schema {wanted}, got {found!r}")
    require(isinstance(document.get("cases"), list), "expected a list of cases")
    used: set[str] = set()
    goldens = [_read_case(case, arrays, used) for case in document["cases"]]
    require(used == set(arrays), f"no case uses the arrays {sorted(set(arrays) - used)}")
    return goldens


def _read_arrays(path: Path) -> dict[str, Matrix]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        require(size <= _MOST_BYTES, f"{size} bytes of arrays are over {_MOST_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise CommandError(f"golden file: {path.name} cannot be read: {error}") from None
    for name, array in arrays.items():
        require(isinstance(array, np.ndarray), f"{name} is no array")
        require(array.dtype in (np.float64, np.int64), f"{name}: {array.dtype} is not float64")
        require(bool(np.isfinite(array).all()), f"{name} holds NaN or inf")
    return arrays


def _read_case(case: Any, arrays: dict[str, Matrix], used: set[str]) -> Golden:
    images, numbers = ("x", "y", "z", "x2"), ("norm", "inverse_norm", "condition")
    try:
        name, tolerance, log_det = case["name"], case["tolerance"], case["log_det"]
        spatial, batch = tuple(case["spatial_shape"]), tuple(case["batch_shape"])
        shape = (*batch, case["channels"], *spatial)
        x, y, z, x2 = (arrays[case[image]] for image in images)
        found = [
            *(case[n] for n in numbers),
            log_det,
            *(tolerance[w] for w in ("y", "x2", "log_det")),
        ]
        operator = case["operator"]
    except (KeyError, TypeError) as error:
        raise CommandError(f"golden file: a case lacks {error}") from None
    used |= {case[image] for image in images}
    for image, array in zip(images, (x, y, z, x2), strict=True):
        require(array.shape == shape, f"{name}: {image} has shape {array.shape}, not {shape}")
        require(array.dtype == np.float64, f"{name}: {image} is {array.dtype}, not float64")
    require(
        all(isinstance(v, float) and math.isfinite(v) for v in found),
        f"{name}: expected finite numbers",
    )
    try:
        conv = build(operator, arrays, used)
    except InvalidFileError as error:
        raise CommandError(f"golden file: {name}: {error}") from None
    outputs = {"y": y, "x2": x2, "log_det": np.asarray(log_det)}
    kept = {n: case[n] for n in numbers}
    return Golden(name, conv, spatial, batch, x, z, outputs, kept, tolerance)
