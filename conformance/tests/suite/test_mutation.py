"""Laws catch what cosmic-ray's operators change in the rooms of the mathematics, and how much.

cosmic-ray itself rewrites the checkout, one mutant at a time, and starts a Python for each. Here
its operators edit copies, which forks judge of a process that has imported NumPy and SciPy.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from tests.programs import ROOT
from tests.suite.test_planted_faults import Laws, copied, rewrite

pytest.importorskip("cosmic_ray")

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

SAMPLE = 12  # mutants of a room
_SWAPS = {
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Add Pow_Mul",
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_GtE Is_IsNot IsNot_Is",
    "Unary": "USub_UAdd Delete_Not",
}
OPERATORS = [f"Replace{kind}Operator_{swap}" for kind in _SWAPS for swap in _SWAPS[kind].split()]
OPERATORS += ["AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse"]
OPERATORS += ["ReplaceFalseWithTrue", "NumberReplacer", "ZeroIterationForLoop"]

# laws that take longest, and those of what operators share, which is no mathematics
_WITHOUT = "same_bits threads copies determinism edits empty file file.same layout updates"


def _laws(cases: str, plain: bool = False) -> Laws:
    return Laws(cases, ("float64",), quick=False, plain=plain, without=_WITHOUT.split())


class Room(NamedTuple):
    """Files of the core, what judges a mutant, and how many of the sample are caught at least.

    They are two fewer than were caught when it was measured, since an edit may draw other lines.
    """

    files: str
    laws: Laws
    floor: int


# cases that take little time, and none that only the compiled kernel finds hard
_CAUSAL = """
    corner-bias corner-2d+- raster-k2x3-dilated emerging-2d corner-wider-than-grid ill-corner
    ill-pixel ill-triangle singular-corner
"""
_FREQUENCIES = """
    periodic-even-dilated symmetric-bias circulantconv1x1-c4 exponential-circular-k7-on-2x3
    periodic-7x7 periodic-8x8 periodic-k25x24 symmetric-k9x3 symmetric-long ill-frequencies
    ill-periodic ill-symmetric singular-periodic singular-symmetric singular-quarter-turns
"""
_STEPS = """
    chain-inverses chain-merged exponential-norm-0.0001 exponential-zeros-k1-on-2x3
    exponential-circular-norm-20 transposed-emerging-biases
"""
_POINTWISE = """
    conv1x1-2d actnorm-2d pluconv1x1-2d qrconv1x1-m100 orthogonalconv1x1-m2 householderconv1x1-2d
    ill-conv1x1 ill-qrconv1x1 ill-circulantconv1x1 singular-pluconv1x1 singular-qrconv1x1
"""
_ALL = _laws(_POINTWISE + _CAUSAL + _FREQUENCIES + _STEPS)
ROOMS = {
    "families": Room("families/*.py", _ALL, 4),
    "trust": Room("trust/*.py", _ALL, 3),
    "frequencies": Room("kernels/frequencies/*.py", _laws(_FREQUENCIES + "chain-merged"), 4),
    "kernels": Room("kernels/*.py", replace(_ALL, plain=True), 5),
    "plain": Room("kernels/pitched.py", _laws("corner-[24]d* raster-* ill-*", True), 3),
    "operators": Room("operators/*.py", _laws(_CAUSAL + _FREQUENCIES + _STEPS), 6),
}


# no operators: core/test_filters.py, test_least_squares.py and test_blocks.py hold them
_WITHOUT_LAWS = ("filters.py", "psf.py", "least_squares.py", "blocks.py")


class Mutant(NamedTuple):
    """A file of which an operator changes one place, in a line of that number and text."""

    file: str
    line: int
    text: str
    operator: str
    occurrence: int

    def caught_by(self, laws: Laws) -> str:
        """Tell what catches it; "" if nothing does."""
        with copied() as folder:
            path = folder / "invconv" / self.file
            operator = get_operator(f"core/{self.operator}")()
            rewrite(path, mutate_code(path.read_text("utf-8"), operator, self.occurrence))
            return laws.hold(folder)[0]


def mutants(files: str) -> Iterator[Mutant]:
    """Yield all mutants of some files."""
    for path in sorted((ROOT / "invconv").glob(files)):
        code, file = path.read_text("utf-8"), path.relative_to(ROOT / "invconv").as_posix()
        if path.name in _WITHOUT_LAWS:
            continue
        lines, tree = code.splitlines(), get_ast(code)
        for name in OPERATORS:
            operator = get_operator(f"core/{name}")()
            places = [p for node in ast_nodes(tree) for p in operator.mutation_positions(node)]
            for occurrence, ((line, _), _) in enumerate(places):
                yield Mutant(file, line, lines[line - 1].strip(), name, occurrence)


def sample(files: str, count: int = SAMPLE) -> list[Mutant]:
    """Return mutants of some lines, drawn by a hash: an edit of others leaves them as they are."""

    def drawn(one: Mutant) -> str:
        return hashlib.sha256(f"{one.file} {one.text} {one.operator}".encode()).hexdigest()

    ours = (one for one in mutants(files) if not one.text.startswith("@"))  # no import survives
    of_line: dict[tuple[str, str], Mutant] = {}
    for one in sorted(ours, key=drawn):
        of_line.setdefault((one.file, one.text), one)
    return list(of_line.values())[:count]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOMS)
def test_laws_catch_mutants(name: str, record_property: Callable[[str, str], None]) -> None:
    """What survives is a slower way to the same numbers, a constant, or other libraries'."""
    room = ROOMS[name]
    drawn = sample(room.files)
    missed = [mutant for mutant in drawn if not mutant.caught_by(room.laws)]
    score = f"{len(drawn) - len(missed)} of {len(drawn)} caught, expected {room.floor} at least"
    record_property(f"mutants of {room.files}", score)
    assert len(drawn) - len(missed) >= room.floor, "\n".join(map(str, missed))
