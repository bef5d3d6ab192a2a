"""Hold `conv.condition` against the true condition numbers of random operators of every family.

``python conformance/tests/stability/condition_accuracy.py`` prints, a line per family, the smallest
and the largest ratio of the two over 500 operators, how many of the numbers are estimates, and how
many `diagnose` calls uncertain; it exits with 1 where a ratio leaves [1/3, 3], or where a number
is called uncertain though the condition is below 1e13. With ``--estimate`` no number is exact that
could be estimated.

The truth is the norm of the dense matrix of the definition (`oracle`) times that of its inverse,
which is the product of the parts' inverses: substitution for triangular parts and elimination for
the others, in extended precision up to `_EXTENDED` unknowns, in float64 beyond.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from rich.console import Console
from rich.progress import track
from rich.table import Table

import invconv as ic
from invconv.extend import Pointwise
from invconv.operators.base import conditions
from invconv.trust import norms
from invconv_conformance.cases.drawn import FAMILIES
from invconv_conformance.truth import oracle
from invconv_conformance.truth.extended import EXTENDED, ExtendedLU

Matrix = np.ndarray[Any, Any]
Shape = tuple[int, ...]

WITHIN = 3.0
HOPELESS = 1e13  # below it, float64 has to know
_BEYOND = 1e300  # where rounding decides whether a number overflows
_EXTENDED = 300  # unknowns up to which triangular parts are inverted in extended precision


def matrices(conv: ic.InvertibleConv, shape: Shape, dtype: Any) -> tuple[Matrix, Matrix]:
    """Return K and K^-1, dense; 1x1s in extended precision and of one pixel."""
    if isinstance(conv, ic.Inverse):
        matrix, inverse = matrices(conv.conv, shape, dtype)
        return inverse, matrix
    if isinstance(conv, ic.EmergingConv):
        return matrices(ic.Chain([conv.first, conv.second]), shape, dtype)
    if isinstance(conv, ic.Chain):
        unknowns = conv.channels * math.prod(shape)
        pairs = [matrices(step, shape, dtype) for step in conv.steps]
        applied = [_spread(matrix, unknowns).astype(dtype) for matrix, _ in pairs]
        solved = [_spread(inverse, unknowns).astype(dtype) for _, inverse in pairs]
        return functools.reduce(np.matmul, reversed(applied)), functools.reduce(np.matmul, solved)
    if isinstance(conv, ic.AutoregressiveConv):
        matrix = oracle.affine(conv, shape, dtype)[0]
        return matrix, _triangular_inverse(matrix, _substitution_order(conv, shape))
    if isinstance(conv, ic.PeriodicConv | ic.SymmetricConv):
        matrix = oracle.affine(conv, shape, EXTENDED)[0]
        inverse = ExtendedLU(matrix).solve(np.eye(len(matrix), dtype=EXTENDED))
        return matrix.astype(dtype), inverse.astype(dtype)
    return _pointwise(conv)


def _spread(matrix: Matrix, unknowns: int) -> Matrix:
    """Return the matrix of all pixels for the one of a pixel."""
    return np.kron(matrix, np.eye(unknowns // len(matrix)))


def _substitution_order(conv: ic.AutoregressiveConv, shape: Shape) -> Matrix:
    """Return the unknowns (C, *shape) in an order in which K is lower triangular."""
    assert isinstance(conv.direction, tuple)
    number = np.arange(conv.channels * math.prod(shape)).reshape(conv.channels, *shape)
    flips = tuple(axis + 1 for axis, s in enumerate(conv.direction) if s < 0)
    if conv.channel_order == "upper":
        flips = (0, *flips)
    return np.moveaxis(np.flip(number, flips), 0, -1).reshape(-1)


def _triangular_inverse(matrix: Matrix, order: Matrix) -> Matrix:
    lower = matrix[np.ix_(order, order)]
    assert not np.triu(lower, 1).any()
    if matrix.dtype == np.float64:
        solved = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    else:
        solved = np.eye(len(lower), dtype=EXTENDED)
        for k in range(len(lower)):
            solved[k, : k + 1] -= lower[k, :k] @ solved[:k, : k + 1]
            solved[k, : k + 1] /= lower[k, k]
    inverse = np.empty_like(solved)
    inverse[np.ix_(order, order)] = solved
    return inverse


def _pointwise(conv: ic.InvertibleConv) -> tuple[Matrix, Matrix]:
    identity = np.eye(conv.channels, dtype=EXTENDED)
    matrix = oracle.affine(conv, (1,), EXTENDED)[0]
    if isinstance(conv, ic.PLUConv1x1):  # (P L) and (U + diag) apart, since L^-1 and U^-1 are exact
        unit = oracle.plu(conv.permutation, conv.lower, 0 * conv.upper, conv.sign, 0 * conv.sign)
        upper = np.triu(conv.upper, 1) + np.diag(
            conv.sign * np.exp(conv.log_scale.astype(EXTENDED))
        )
        left = ExtendedLU(unit * conv.sign).solve(identity)
        return matrix, _triangular_inverse(upper, np.arange(conv.channels)[::-1]) @ left
    if isinstance(conv, ic.QRConv1x1):
        q = oracle.qr(conv.reflectors, 0 * conv.upper, np.ones(conv.channels))
        upper = np.triu(conv.upper, 1) + np.diag(conv.scale).astype(EXTENDED)
        return matrix, _triangular_inverse(upper, np.arange(conv.channels)[::-1]) @ q.T
    return matrix, ExtendedLU(matrix).solve(identity)


def _is_normal(conv: ic.InvertibleConv) -> bool:
    """Tell whether `condition` is documented to be in the 2-norm."""
    if isinstance(conv, ic.Inverse):
        return _is_normal(conv.conv)
    if isinstance(conv, ic.Chain):
        return all(map(_at_the_pixel, conv)) or (len(conv) == 1 and _is_normal(conv[0]))
    return not isinstance(conv, ic.AutoregressiveConv | ic.EmergingConv)


def _at_the_pixel(conv: ic.InvertibleConv) -> bool:
    if isinstance(conv, ic.Chain | ic.Inverse):
        return all(map(_at_the_pixel, conv if isinstance(conv, ic.Chain) else [conv.conv]))
    return isinstance(conv, Pointwise | ic.ActNorm)


def _norm(matrix: Matrix, conv: ic.InvertibleConv) -> float:
    if not np.isfinite(matrix).all():
        return math.inf
    if not _is_normal(conv):
        return float(np.abs(matrix).sum(axis=0).max())
    largest = np.abs(matrix).max()
    return float(largest) * float(np.linalg.norm((matrix / largest).astype(float), 2))


def true_condition(conv: ic.InvertibleConv, shape: Shape) -> float:
    """Return |K| |K^-1| in the norm that `condition` documents."""
    small = conv.channels * math.prod(shape) <= _EXTENDED
    with np.errstate(all="ignore"):
        matrix, inverse = matrices(conv, shape, EXTENDED if small else np.float64)
        found = _norm(matrix, conv) * _norm(inverse, conv)
    return found if math.isfinite(found) else math.inf


@dataclass(frozen=True)
class Comparison:
    """An operator's condition number as `condition` says it, and as it is.

    ``certain`` is False where `diagnose` says that no digit is, or that K is singular as computed.
    """

    conv: ic.InvertibleConv
    shape: Shape
    said: float
    truth: float
    certain: bool

    @property
    def ratio(self) -> float:
        """What is said over what is, 1 where both leave float64's range."""
        both_beyond = math.isinf(self.said) and self.truth > _BEYOND
        return 1.0 if both_beyond else self.said / self.truth

    @property
    def holds(self) -> bool:
        """Tell whether the two agree, or the operator is hopeless and is called so."""
        if self.certain:
            return 1 / WITHIN <= self.ratio <= WITHIN
        return self.truth > HOPELESS


def compare(family: str, count: int, seed: int = 0) -> Iterator[Comparison]:
    """Yield random operators of a family with both numbers."""
    for rng in np.random.default_rng([seed, list(FAMILIES).index(family)]).spawn(count):
        conv, shape = FAMILIES[family](rng)
        said, truth = conv.condition(shape), true_condition(conv, shape)
        certain = True
        if not truth < HOPELESS or not 1 / WITHIN <= said / truth <= WITHIN:
            found = ic.diagnose(conv, shape)
            certain = found.resolved and "exactly singular" not in found.trouble
        yield Comparison(conv, shape, said, truth, certain)


def main() -> int:
    """Print the table; return 1 if a number is off."""
    parser = argparse.ArgumentParser(description="Condition numbers of random operators.")
    parser.add_argument("--count", type=int, default=500, help="operators a family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one (again)")
    parser.add_argument("--estimate", action="store_true", help="estimate on small grids, too")
    arguments = parser.parse_args()
    if arguments.estimate:
        norms._EXACT_NUMBERS = 0
    table = Table(title="condition / true condition")
    for column in ("family", "smallest", "largest", "true, up to", "estimates", "uncertain"):
        table.add_column(column, justify="left" if column == "family" else "right")
    off: list[Comparison] = []
    for family in track(arguments.family or list(FAMILIES), "comparing"):
        found = list(compare(family, arguments.count, arguments.seed))
        table.add_row(family, *summary(found))
        off += [c for c in found if not c.holds]
    Console().print(table)
    for c in off:
        print(f"off: {c.said:.4g} instead of {c.truth:.4g}, {c.conv!r} on {c.shape}")
    return 1 if off else 0


def summary(found: list[Comparison]) -> tuple[str, ...]:
    """Return the cells of a family's line."""
    certain = [c for c in found if c.certain]
    return (
        f"{min(c.ratio for c in certain):.3f}",
        f"{max(c.ratio for c in certain):.3f}",
        f"{max(c.truth for c in certain):.0e}",
        str(sum(not conditions.number(c.conv, c.shape).exact for c in certain)),
        f"{len(found) - len(certain)} of {len(found)}",
    )


if __name__ == "__main__":
    sys.exit(main())
