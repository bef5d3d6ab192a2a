"""The golden files' format, "invconv-golden/1" and "/2": how operators are written and read.

A version is of the operators that there were: what has been published is never edited, a later
version adds files of the operators that are new. An operator is a JSON object as in
`invconv.files.description`: class, settings, arrays and parts.
"""

from __future__ import annotations

from invconv.arrays.errors import CommandError
from invconv.files.description import Json

VERSIONS = (1, 2)
_SCHEMA = "invconv-golden/"

_CONVENTIONS: Json = {
    "purpose": "Inputs, parameters and outputs with which an implementation of invertible "
    "convolutions, in any language, can test itself.",
    "files": "This file, and beside it golden-VERSION.npz: a zip archive of .npy files (NumPy "
    "format 1.0, little-endian, C order, no pickled objects). An array NAME is the member "
    "NAME.npy. All are float64, but for permutations, which are int64. Inputs and parameters are "
    "float32 numbers stored as float64, so that a float32 implementation reads them without "
    "rounding.",
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

_OPERATORS: dict[str, str] = {
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


_LATER: dict[int, dict[str, str]] = {  # by the version that has them
    2: {
        "ExponentialConv": "y = exp(M) x + bias, exp(M) = sum over n >= 0 of M^n / n!, whose "
        "inverse is exp(-M). (M x)[:, p] = sum over taps t of kernel[:, :, t] x[:, q], with q = p "
        "+ dilation (t - (k - 1)/2) along each axis of k taps, k odd. padding zeros: a term with q "
        "outside the grid is left out. padding circular: q is taken modulo the grid. log_det = "
        "trace of M = N sum over c of kernel[c, c, t], t the centre; circular: the sum over all "
        "taps whose q is p.",
        "SymmetricConv": "y[:, p] = sum over offsets o of kernel[:, :, |o|] x[:, q] + bias, o from "
        "1 - h to h - 1 along each axis of h taps, |o| its absolute values, and q = p + o mirrored "
        "into the grid: along an axis of n pixels q is taken modulo 2 n, then 2 n - 1 - q where "
        "it is n or more. log_det = sum over all m of log|det K_hat(m)|, m from 0 to n - 1 along "
        "each axis, K_hat(m) = sum over o of kernel[:, :, |o|] times the product over the axes of "
        "cos(pi m o / n).",
        "OrthogonalConv1x1": "As Conv1x1 with weight = H_0 H_1 ... H_(m-1), as QRConv1x1 has them. "
        "log_det = 0.",
        "CirculantConv1x1": "As Conv1x1 with weight[i, j] = left[i] circulant[(i - j) mod C] "
        "right[j]. log_det = N (sum(log|left|) + sum over f of log|c_hat(f)| + sum(log|right|)), "
        "c_hat(f) = sum over k of circulant[k] exp(-2 pi i f k / C), f = 0 ... C - 1.",
    },
}


def schema(version: int) -> str:
    """Return what a file of a version calls its format."""
    return f"{_SCHEMA}{version}"


def file_name(version: int) -> str:
    """Return the name of the files of a version, without suffix."""
    return f"golden-{version}"


def conventions(version: int) -> Json:
    """Return what a file of a version says of itself."""
    text = _CONVENTIONS["files"].replace("golden-VERSION", file_name(version))
    return _CONVENTIONS | {"files": text}


def operators(version: int) -> dict[str, str]:
    """Return the definitions of the operators that a version has, and those of earlier ones."""
    later = [more for number, more in _LATER.items() if number <= version]
    return {name: text for texts in (_OPERATORS, *later) for name, text in texts.items()}


def require(holds: bool, message: str) -> None:
    """Raise ValueError unless something holds."""
    if not holds:
        raise CommandError(f"golden file: {message}")
