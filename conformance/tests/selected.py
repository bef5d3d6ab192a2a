"""What a test takes of many: cases by name, seeds, libraries that may be missing."""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import array_api_strict
import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.operators.base.fields import is_own, operators
from invconv_conformance.cases.table import CASES, Case
from invconv_conformance.libraries import LIBRARIES

(CUPY,) = [library for library in LIBRARIES if library.name == "cupy"]
without_gpu = pytest.mark.skipif(CUPY.absent() is None, reason="CuPy can use a GPU")

# how each library carries NumPy's arrays over
CARRY: dict[str, Callable[[Any], Any]] = {
    "numpy": np.asarray,
    "array_api_strict": array_api_strict.asarray,
    "torch": torch.as_tensor,
    "jax": jax.numpy.asarray,
}
OWN = [cls for cls in operators().values() if is_own(cls)]  # the classes of this library
libraries = pytest.mark.parametrize("carry", CARRY.values(), ids=CARRY)


def slow(*values: Any, **options: Any) -> Any:
    """Return a parameter whose test is slow."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def seeds(daily: int, nightly: int) -> list[Any]:
    """Return seeds as parameters, of which the tests by default run the first."""
    return [*range(daily), *map(slow, range(daily, nightly))]


# of programs in processes: PyTorch's import takes seconds
processes = pytest.mark.parametrize("library", ["numpy", slow("torch")])


def cases_named(*names: str) -> list[Case]:
    """Return cases in the order of the list of all; an unknown name is an error."""
    found = [case for case in CASES if case.name in names]
    if unknown := set(names) - {case.name for case in found}:
        raise ValueError(f"no case is named {', '.join(sorted(unknown))}")
    return found


_CHOSEN = (
    *("actnorm-2d", "conv1x1-2d", "pluconv1x1-2d", "qrconv1x1-2d", "orthogonalconv1x1-2d"),
    *("circulantconv1x1-2d", "corner-bias", "emerging-biases", "periodic-bias", "symmetric-bias"),
    *("exponential-bias", "chain-flow-step"),
    *("inverse-emerging-biases", "transposed-emerging-biases"),
)
# of kinds of factors, for what compiles: the slow run has every class
COMPILED = (
    *("conv1x1-batch-axes", "pluconv1x1-2d", "corner-4d-++-", "emerging-biases"),
    *("periodic-even-dilated", "bordered-periodic-symmetric", "exponential-bias", "chain-inverses"),
)


def _one_of_each() -> tuple[str, ...]:
    """Return the chosen cases, and the first case of every class that they leave out."""
    known = {type(case.conv()) for case in cases_named(*_CHOSEN)}
    first = {type(case.conv()): case.name for case in reversed(CASES)}
    rest = [name for cls, name in first.items() if cls not in known]
    return (*_CHOSEN, *sorted(rest))


ONE_OF_EACH = _one_of_each()
FEW = cases_named(*ONE_OF_EACH, "raster-k2x3-dilated", "periodic-even-dilated", "qrconv1x1-m0")


def turned(*gains: float, dtype: Any = "float32") -> ic.Conv1x1:
    """Return a symmetric matrix of two singular values; no entry of it is theirs."""
    turn = np.asarray([[0.8, -0.6], [0.6, 0.8]])
    return ic.Conv1x1((turn @ np.diag(gains) @ turn.T).astype(dtype))


def of_each_class(*names: str) -> list[Any]:
    """Return cases by name as parameters, and in the slow run one of every class they leave out."""
    chosen = cases_named(*names)
    there = {type(case.conv()) for case in chosen}
    rest = [case for case in cases_named(*ONE_OF_EACH) if type(case.conv()) not in there]
    slowly = (slow(case, id=case.name) for case in rest)
    return [*(pytest.param(case, id=case.name) for case in chosen), *slowly]


def installed(names: Iterable[str]) -> list[Any]:
    """Return libraries as parameters of a test, those that are not installed to be skipped."""

    def skip_if_absent(name: str) -> Any:
        absent = importlib.util.find_spec(name) is None
        return pytest.mark.skipif(absent, reason=f"{name} is not installed")

    return [pytest.param(name, marks=skip_if_absent(name)) for name in names]
