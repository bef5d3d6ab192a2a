"""Golden vectors: inputs, parameters and outputs in a file that any language can read.

``python -m invconv_conformance.golden`` recomputes every output of the shipped file from its
parameters, by the definition in extended precision and by the core, and fails where one moved.
``--write FOLDER`` makes the files anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from invconv_conformance import golden_truth
from invconv_conformance.bounds import C_FACTOR, EPS, scales
from invconv_conformance.case import Case
from invconv_conformance.cases import CASES
from invconv_conformance.golden_files import FOLDER, Golden, read, write
from invconv_conformance.golden_format import SCHEMA, require
from invconv_conformance.oracle import Matrix

_SAME = 1e-6  # relative, of conditions and tolerances, which need no more digits

SELECTION = """
corner-1d+ corner-2d++ corner-2d+- corner-2d-+ corner-2d-- corner-3d+-+ corner-4d-++-
corner-3d-dilated corner-k1 corner-k2x4 corner-wider-than-grid corner-one-pixel corner-one-row
corner-one-channel corner-bias corner-ill-conditioned-at-the-pixel
raster-1d+1 raster-2d+1 raster-2d-1 raster-3d-1 raster-4d+1 raster-k3 raster-k2x3-dilated
raster-wide-on-narrow
emerging-2d emerging-4d emerging-k5 emerging-k1x3 emerging-dilated emerging-biases
periodic-1d periodic-2d periodic-3d periodic-4d periodic-k2 periodic-k4 periodic-k7 periodic-k2x3
periodic-even-dilated periodic-one-pixel periodic-one-row periodic-8x8 periodic-bias
conv1x1-2d conv1x1-batch-axes conv1x1-one-channel pluconv1x1-2d pluconv1x1-batch-axes
qrconv1x1-2d qrconv1x1-m0 qrconv1x1-m6 actnorm-2d
chain-flow-step chain-flow-step-no-batch chain-merged-one-pixel chain-inverses
inverse-periodic-bias inverse-emerging-biases
"""


def _sizes(golden: Golden, outputs: dict[str, Matrix]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the condition and the tolerances, from the derived bounds."""
    affine = golden_truth.affine(golden.conv, golden.spatial_shape)
    values = np.linalg.svd(affine.matrix.astype(np.float64), compute_uv=False)
    numbers = {"norm": float(values[0]), "inverse_norm": float(1 / values[-1])}
    numbers["condition"] = numbers["norm"] * numbers["inverse_norm"]
    s, unit = scales(golden.conv, golden.spatial_shape), C_FACTOR * EPS["float64"]
    shift = float(np.linalg.norm(affine.shift.astype(np.float64)))
    x, x2 = (float(_norms(golden, a).max()) for a in (golden.x, outputs["x2"]))
    return numbers, {
        "y": unit * s.terms * (s.gain * x + shift),
        "x2": unit * s.terms * s.gain * s.loss * (x2 + s.loss * shift),
        "log_det": unit * (s.logs + abs(float(outputs["log_det"])) + 1),
    }


def _norms(golden: Golden, images: Matrix) -> Matrix:
    """Return the 2-norm of each sample."""
    samples = images.reshape(math.prod(golden.batch_shape), -1)
    return np.asarray(np.linalg.norm(samples, axis=1))


def make(case: Case) -> Golden:
    """Compute a case, its numbers rounded to float32 first."""
    conv = case.conv()
    conv = conv.replace(**{name: _rounded(a) for name, a in conv.parameters().items()})
    x, z = map(_rounded, case.images(2))
    outputs = golden_truth.truth(conv, case.spatial_shape, x, z).values
    bare = Golden(case.name, conv, case.spatial_shape, case.batch_shape, x, z, outputs, {}, {})
    numbers, tolerance = _sizes(bare, outputs)
    return dataclasses.replace(bare, numbers=numbers, tolerance=tolerance)


def _rounded(array: Matrix) -> Matrix:
    return array.astype(np.float32).astype(np.float64)


def moved(golden: Golden) -> list[str]:
    """Return a line for each output that is not what the definition and the core give."""
    truth = golden_truth.truth(golden.conv, golden.spatial_shape, golden.x, golden.z)
    numbers, tolerance = _sizes(golden, truth.values)
    lines = [
        *_by_definition(golden, truth),
        *_by_number("", golden.numbers, numbers),
        *_by_number("tolerance of ", golden.tolerance, tolerance),
        *_by_core(golden, tolerance),
    ]
    return [f"{golden.name}: {line}" for line in lines]


def _by_definition(golden: Golden, truth: golden_truth.Truth) -> Iterator[str]:
    for what, value in golden.outputs.items():
        share = np.abs(value - truth.values[what]) / truth.allowed[what]
        bad = int((~(share <= 1)).sum())
        if bad:
            at = np.unravel_index(int(np.argmax(share)), share.shape)
            where = f"{what}[{', '.join(map(str, at))}]" if at else what
            yield (
                f"{bad} of {share.size} values of {what}: {where} is {float(value[at])!r}, "
                f"the definition gives {float(truth.values[what][at])!r}"
            )


def _by_number(prefix: str, stored: dict[str, float], again: dict[str, float]) -> Iterator[str]:
    for name, number in again.items():
        if not math.isclose(stored[name], number, rel_tol=_SAME):
            yield f"{prefix}{name} is {stored[name]}, recomputed {number}"


def _by_core(golden: Golden, tolerance: dict[str, float]) -> Iterator[str]:
    conv, outputs = golden.conv, golden.outputs
    errors = {
        "y": _norms(golden, conv.forward(golden.x) - outputs["y"]).max(),
        "x2": _norms(golden, conv.inverse(golden.z) - outputs["x2"]).max(),
        "log_det": abs(conv.log_det(golden.spatial_shape) - outputs["log_det"]),
    }
    for what, error in errors.items():
        if not error <= tolerance[what]:
            yield (
                f"{what} by the core is off by {float(error):.3g}, "
                f"over the bound {tolerance[what]:.3g}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files, or write them; 1 if a value moved, 2 if they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m invconv_conformance.golden", description=__doc__
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="check the files here")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="make new files there")
    arguments = parser.parse_args(argv)
    console = Console(soft_wrap=True, highlight=False)
    try:
        if arguments.write is not None:
            require(arguments.write.is_dir(), f"there is no folder {arguments.write}")
            cases, names = {case.name: case for case in CASES}, SELECTION.split()
            require(set(names) <= set(cases), f"no case {sorted(set(names) - set(cases))}")
            goldens = [make(cases[name]) for name in _progress(names, console)]
            for path in write(arguments.write, goldens):
                console.print(f"{path}: {path.stat().st_size} bytes", markup=False)
            return 0
        goldens = read(arguments.folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = [line for golden in _progress(goldens, console) for line in moved(golden)]
    for line in lines:
        console.print(f"moved: {line}", markup=False)
    kinds = len({type(golden.conv) for golden in goldens})
    verdict = f"{len(lines)} moved" if lines else "none moved"
    console.print(f"{SCHEMA}: {len(goldens)} cases of {kinds} operators, {verdict}")
    return 1 if lines else 0


def _progress(items: Sequence[Any], console: Console) -> Any:
    return track(items, "golden vectors", console=console, transient=True)


if __name__ == "__main__":
    sys.exit(main())
