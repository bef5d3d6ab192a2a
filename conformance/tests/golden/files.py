"""The golden files: an archive of arrays, and JSON that says what they are.

The format, "invconv-golden/1" to "/3", is described in the JSON itself. A version is of the
operators that there were: what has been published is never edited, a later version adds files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv.files.description import Json, build, describe
from invconv_conformance.truth.oracle import Matrix, Shape

FOLDER = Path(__file__).parents[2] / "golden"
VERSIONS = (1, 2, 3)


@dataclass(frozen=True, eq=False)
class Golden:
    """An operator on a grid, what goes in and what comes out."""

    name: str
    conv: ic.InvertibleConv
    spatial_shape: Shape
    batch_shape: Shape
    x: Matrix
    z: Matrix
    outputs: dict[str, Matrix]  # y, x2 and log_det
    numbers: dict[str, float]  # norm, inverse_norm and condition
    tolerance: dict[str, float]  # of each output


def write(folder: Path, goldens: Sequence[Golden], document: Json) -> list[Path]:
    """Write both files of a version, those of a document but for its cases; return their paths."""
    arrays: dict[str, Any] = {}
    text = _dumps(document | {"cases": [_as_json(golden, arrays) for golden in goldens]})
    stem = document["schema"].replace("invconv-", "").replace("/", "-")
    paths = [folder / f"{stem}{suffix}" for suffix in (".npz", ".json")]
    np.savez_compressed(paths[0], **dict(sorted(arrays.items())))
    paths[1].write_text(text, encoding="utf-8")
    return paths


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


def document(version: int, folder: Path = FOLDER) -> Json:
    """Return the JSON of a version."""
    text = (folder / f"golden-{version}.json").read_text(encoding="utf-8")
    found: Json = json.loads(text)
    return found


def read(version: int, folder: Path = FOLDER) -> list[Golden]:
    """Return the cases of a version, whose files must be right."""
    with np.load(folder / f"golden-{version}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        assert array.dtype in (np.float64, np.int64), f"{name}: {array.dtype} is not float64"
        assert np.isfinite(array).all(), f"{name} holds NaN or inf"
    page, used = document(version, folder), set[str]()
    assert page["schema"] == f"invconv-golden/{version}", f"{page['schema']} is another format"
    goldens = [_read_case(case, arrays, used) for case in page["cases"]]
    assert used == set(arrays), f"no case uses the arrays {sorted(set(arrays) - used)}"
    return goldens


def _read_case(case: Json, arrays: dict[str, Matrix], used: set[str]) -> Golden:
    spatial, batch = tuple(case["spatial_shape"]), tuple(case["batch_shape"])
    images = {image: arrays[case[image]] for image in ("x", "y", "z", "x2")}
    used |= {case[image] for image in images}
    shape = (*batch, case["channels"], *spatial)
    for image, array in images.items():
        assert array.shape == shape, f"{image} has shape {array.shape}, not {shape}"
    outputs = {"y": images["y"], "x2": images["x2"], "log_det": np.asarray(case["log_det"])}
    numbers = {name: case[name] for name in ("norm", "inverse_norm", "condition")}
    found = [case["log_det"], *numbers.values(), *case["tolerance"].values()]
    assert all(type(v) is float and math.isfinite(v) for v in found), "expected finite numbers"
    conv = build(case["operator"], arrays, used)
    x, z = images["x"], images["z"]
    return Golden(case["name"], conv, spatial, batch, x, z, outputs, numbers, case["tolerance"])
