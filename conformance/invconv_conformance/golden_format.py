"""The golden file's format, "invconv-golden/1": how operators are written and read.

An operator is a JSON object that names its class, its settings, its arrays and its parts. The
reader knows the classes from a table and refuses everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic

Arrays = Mapping[str, np.ndarray[Any, Any]]
Json = dict[str, Any]

SCHEMA = "invconv-golden/1"

CONVENTIONS: Json = {
    "purpose": "Inputs, parameters and outputs with which an implementation of invertible "
    "convolutions, in any language, can test itself.",
    "files": "This file, and beside it golden-1.npz: a zip archive of .npy files (NumPy format "
    "1.0, little-endian, C order, no pickled objects). An array NAME is the member NAME.npy. All "
    "are float64, but for permutations, which are int64. Inputs and parameters are float32 "
    "numbers stored as float64, so that a float32 implementation reads them without rounding.",
    "arrays": "Images x, y, z, x2 have the axes (*batch_shape, channels, *spatial_shape), "
    "kernels (channels out, channels in, *kernel size). All indices count from 0. p is a pixel, "
    "one index an axis, N = product of spatial_shape the number of pixels, C the channels.",
    "case": "y = forward(x). x2 = inverse(z), so that forward(x2) = z. log_det = log|det J|, J "
    "the Jacobian of forward for one sample, a square matrix of order C N; natural logarithm. "
    "The log-determinant of the inverse is -log_det. The maps are affine: forward(x) = K x + b. "
    "condition = norm inverse_norm = |K|_2 |K^-1|_2.",
    "operator": "class: a key of operators, below. settings: its settings. arrays: its "
    "parameters, by the symbol that the formulas use, each the name of an array of the npz; an "
    "absent bias is zero. parts: operators that it is made of.",
    "tolerance": "For float64. y and x2: the largest 2-norm, over the samples, of the error of "
    "one sample; log_det: the absolute error. An implementation that computes with another "
    "epsilon e multiplies them by e / 2^-52. They are 10 m 2^-52 (|K| |x| + |b|) for y, "
    "10 m 2^-52 |K| |K^-1| (|x2| + |K^-1| |b|) for x2, with m the length of the longest sum that "
    "a result goes through (for steps: m is their sum, |K| and |K^-1| the products of theirs), "
    "and 10 2^-52 times the size of the terms that log_det is a sum of. So x2 and log_det are "
    "compared relative to the condition, and a stable algorithm keeps well below the tolerances.",
    "origin": "The outputs come from the dense matrix K, by its definition, in extended "
    "precision, rounded to float64. No optimised code took part.",
}

OPERATORS: dict[str, str] = {
    "Conv1x1": "y[:, p] = weight x[:, p] + bias. log_det = N log|det weight|.",
    "PLUConv1x1": "As Conv1x1 with weight = P L U. P: (P v)[i] = v[permutation[i]]. L: the strict "
    "lower triangle of lower, and a unit diagonal. U: the strict upper triangle of upper, and the "
    "diagonal sign exp(log_scale). Other entries of lower and upper are arbitrary and ignored. "
    "log_det = N sum(log_scale).",
    "QRConv1x1": "As Conv1x1 with weight = H_0 H_1 ... H_(m-1) R. H_i = I - 2 v v^T / (v^T v), v = "
    "reflectors[i], of shape (m, C), m may be 0. R: the strict upper triangle of upper, and the "
    "diagonal scale. Other entries of upper are ignored. log_det = N sum(log|scale|).",
    "ActNorm": "y[c, p] = exp(log_scale[c]) x[c, p] + bias[c]. log_det = N sum(log_scale).",
    "AutoregressiveConv": "y[:, p] = sum over taps t of kernel[:, :, t] x[:, q] + bias, with q = p "
    "- direction dilation o(t) along each axis; a term with q outside the grid is left out. mask "
    "corner: o(t) = t. mask raster: o(t) = (t_0, t_1 - (k_1 - 1)/2, t_2 - (k_2 - 1)/2, ...), and "
    "taps where the first non-zero entry of o(t) is negative are masked. At the tap with o(t) = 0 "
    "the C x C matrix kernel[i, j] is masked where j > i (channel_order lower) or j < i (upper). "
    "Masked entries are arbitrary, and count as zero. log_det = N sum over c of log|kernel[c, c, "
    "at o = 0]|.",
    "EmergingConv": "y = second(first(x)) + bias; both are AutoregressiveConv, of opposite "
    "directions, and may have biases of their own. log_det is the sum of theirs.",
    "PeriodicConv": "y[:, p] = sum over taps t of kernel[:, :, t] x[:, q] + bias, with q = (p + "
    "dilation (t - floor((k - 1)/2))) mod n along each axis of k taps and n pixels; kernels may be "
    "even and wider than the grid. log_det = sum over all frequencies f of log|det K_hat(f)|, "
    "K_hat(f) = sum over t of kernel[:, :, t] exp(2 pi i f . (q - p) / n).",
    "Chain": "y = steps[last](... steps[0](x)): parts 0, 1, ... in this order. log_det is the sum "
    "of theirs.",
    "Inverse": "forward is the inverse of the part conv. log_det is minus that of conv.",
}


@dataclass(frozen=True)
class Kind:
    """How a class is written.

    Attributes
    ----------
    cls : type
    arrays : tuple of str
        Its arrays; those in ``constants`` too.
    settings : tuple of str
    parts : tuple of str or None
        Its operators; None for any number of them, named 0, 1, ...
    """

    cls: Any
    arrays: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    parts: tuple[str, ...] | None = ()


KINDS: dict[str, Kind] = {
    "Conv1x1": Kind(ic.Conv1x1, ("weight", "bias"), ("ndim",)),
    "PLUConv1x1": Kind(
        ic.PLUConv1x1, ("permutation", "lower", "upper", "sign", "log_scale", "bias"), ("ndim",)
    ),
    "QRConv1x1": Kind(ic.QRConv1x1, ("reflectors", "upper", "scale", "bias"), ("ndim",)),
    "ActNorm": Kind(ic.ActNorm, ("log_scale", "bias"), ("ndim",)),
    "AutoregressiveConv": Kind(
        ic.AutoregressiveConv,
        ("kernel", "bias"),
        ("mask", "direction", "channel_order", "dilation"),
    ),
    "EmergingConv": Kind(ic.EmergingConv, ("bias",), (), ("first", "second")),
    "PeriodicConv": Kind(ic.PeriodicConv, ("kernel", "bias"), ("dilation",)),
    "Chain": Kind(ic.Chain, (), (), None),
    "Inverse": Kind(ic.Inverse, (), (), ("conv",)),
}


def require(holds: bool, message: str) -> None:
    """Raise ValueError unless something holds."""
    if not holds:
        raise ValueError(f"golden file: {message}")


def describe(conv: Any, prefix: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Json:
    """Return an operator as JSON, and put its arrays into ``arrays`` under "prefix.name"."""
    name = type(conv).__name__
    kind = KINDS[name]
    held = {a: getattr(conv, a) for a in kind.arrays if getattr(conv, a) is not None}
    settings = {s: getattr(conv, s) for s in kind.settings}
    for a, array in held.items():
        arrays[prefix + a] = array
    if kind.parts is None:
        parts = {str(i): step for i, step in enumerate(conv.steps)}
    else:
        parts = {part: getattr(conv, part) for part in kind.parts}
    return {
        "class": name,
        "settings": {s: list(v) if isinstance(v, tuple) else v for s, v in settings.items()},
        "arrays": {a: prefix + a for a in held},
        "parts": {p: describe(part, f"{prefix}{p}.", arrays) for p, part in parts.items()},
    }


def build(description: Any, arrays: Arrays, used: set[str]) -> Any:
    """Return the operator that JSON describes; the names of its arrays are added to ``used``."""
    wanted = {"class", "settings", "arrays", "parts"}
    require(isinstance(description, dict), f"expected an operator, got {description!r}")
    require(set(description) == wanted, f"an operator has {sorted(wanted)}, not {[*description]}")
    name, settings = description["class"], description["settings"]
    require(isinstance(name, str) and name in KINDS, f"unknown class {name!r}")
    kind = KINDS[name]
    for what in ("settings", "arrays", "parts"):
        require(isinstance(description[what], dict), f"{name}: {what} is no object")
    require(set(settings) == set(kind.settings), f"{name} has the settings {kind.settings}")
    unknown = set(description["arrays"]) - set(kind.arrays)
    missing = set(kind.arrays) - set(description["arrays"]) - {"bias"}
    require(not unknown and not missing, f"{name} has the arrays {kind.arrays}")
    held: Json = {"bias": None} if "bias" in kind.arrays else {}
    for symbol, array in description["arrays"].items():
        require(isinstance(array, str) and array in arrays, f"{name}: no array {array!r}")
        held[symbol] = arrays[array]
        used.add(array)
    parts = {p: build(part, arrays, used) for p, part in description["parts"].items()}
    names = tuple(map(str, range(len(parts)))) if kind.parts is None else kind.parts
    require(tuple(parts) == names, f"{name} has the parts {names}, not {tuple(parts)}")
    try:
        if kind.parts is None:
            return kind.cls(tuple(parts.values()))
        return kind.cls(**held, **settings, **parts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"golden file: {name}: {error}") from None
