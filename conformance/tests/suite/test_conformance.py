"""The conformance suite: every library obeys every law; tests know every operator and layer."""

import argparse
import inspect
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import invconv as ic
import invconv_torch as it
from invconv.extend import Pointwise
from invconv.operators.base.fields import is_own, mixings
from invconv_conformance import run
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import KNOWN, LIBRARIES, Column, Target
from invconv_conformance.run import NAMED, QUICK, Check, checks, choose, setting
from invconv_torch.pointwise_layers import Layer
from tests.conftest import TORCH_LAYERS
from tests.selected import FEW, ONE_OF_EACH, OWN, cases_named, slow

_SOME = (  # of each kind of factor, and of what is judged
    *("corner-bias", "periodic-even-dilated", "pluconv1x1-2d"),
    *("chain-inverses", "singular-corner", "ill-corner"),
)
# of what takes seconds to compile: a kernel, a spectrum, a triangle
_COMPILED = ("corner-2d+-", "periodic-even-dilated", "pluconv1x1-2d")
_MORE_COMPILED = ("qrconv1x1-m2", "singular-periodic")
_COMPILED_FUNCTIONS = "before", "least_squares", "lfilter", "propagate", "squeeze"  # of each kind
FUNCTION_LAWS = [name for name, law in LAWS.items() if law.functions]
JUDGED = "condition", "diagnosis", "guard", "warning"
_PARTS = 6  # of the list of cases, so that processes share the work


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Any:
    if reason := request.param.absent():
        pytest.skip(reason)
    return request.param


def test_layers_and_chains_that_recompute_are_checked_where_there_are_some() -> None:
    assert [one.name for one in LIBRARIES if one.layers and one.layer] == ["torch"]
    assert [one.name for one in LIBRARIES if one.recomputing] == ["torch", "jax"]


def _checks_in_turn(library: Any, names: list[str]) -> Iterator[Check]:
    """Yield each case's checks, of float64 and float32 in turn; a few in half types, too.

    Code that is compiled for a second a check keeps a third of the laws, those too in turn: every
    class has them all.
    """
    columns, laws = library.columns(), [*LAWS]
    compiled = [c for c in columns if c.mode != "eager"]
    full = compiled or [c for c in columns if not c.dtype.endswith("float16")]
    rest = [c for c in columns if c not in full]
    # whose checks make minutes of a series
    values = [law for law in LAWS if "value" in law or "vjp" in law]
    # how JAX differentiates has test files of its own
    most = [law for law in LAWS if law != "autodiff"]
    for number, name in enumerate(names):
        column = full[number % len(full)]
        if library.name == "array_api_strict" and name.startswith("exponential"):
            yield from checks(columns[:1], [name], values)
        else:
            yield from checks([column], [name], most[number % 3 :: 3] if compiled else laws)
        if rest and name in QUICK:
            yield from checks([rest[QUICK.index(name) % len(rest)]], [name])


def _require_that_laws_hold(todo: Iterable[Check]) -> None:
    results = [one.run() for one in todo]
    assert sum(r.status == "pass" for r in results) > len(results) / 2
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]


def test_a_few_cases_obey_every_law(library: Any) -> None:
    if library.name == "jax":
        # eager code is compiled, too: in one dtype; of the half types, which add casts, one
        columns = [Column("jax", "cpu", "eager", "float64"), Column("jax", "cpu", "jit", "float32")]
        casts = [law for law in LAWS if law.endswith("value") or law.startswith(("no_", "vjp"))]
        todo = [*checks([Column("jax", "cpu", "eager", "bfloat16")], _COMPILED[2:], casts)]
        every = checks(columns, _COMPILED)
        # to differentiate a spectrum takes as long as its other laws; test_jax_primitives.py does
        todo += [one for one in every if one.law != "autodiff" or one.case == _COMPILED[2]]
    else:
        first, *others = library.columns()
        others = others[-1:] if library.name == "array_api_strict" else others  # each word once
        # a chain, of its steps' dtypes, takes as long as all others together
        less = [name for name in _SOME if name != "chain-inverses"]
        named = _SOME if library.name == "torch" else less
        todo = [*checks([first], named), *checks(others, less[:3])]
    _require_that_laws_hold(todo)


@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_one_of_each_class_obeys_every_law(case: str) -> None:
    """In NumPy's float64, and what is judged in float32; threads have tests of their own."""
    todo: list[Check] = []
    for dtype, laws in (("float64", {*LAWS} - {"same_bits", "threads"}), ("float32", JUDGED)):
        todo += checks([Column("numpy", "cpu", "eager", dtype)], [case], sorted(laws))
    _require_that_laws_hold(todo)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_case_obeys_every_law(library: Any, part: int) -> None:
    _require_that_laws_hold(_checks_in_turn(library, [case.name for case in CASES][part::_PARTS]))


def _each_function() -> Iterator[Any]:
    """Yield libraries, functions, and that every sixth call runs; what compiles runs a few."""
    functions = sorted({call.name.partition("-")[0] for call in CALLS})
    for library, name in itertools.product(LIBRARIES, functions):
        words = f"{library.name}-{name}"
        if "jit" not in library.modes or name in _COMPILED_FUNCTIONS:
            yield pytest.param(library, name, 6, id=words)
        yield slow(library, name, 1, id=f"{words}-every")


@pytest.mark.parametrize(("library", "function", "some"), [*_each_function()], indirect=["library"])
def test_every_function_obeys_every_law(library: Any, function: str, some: int) -> None:
    """In float64 and float32; where a call takes long, a part of them by default."""
    compiled = "jit" in library.modes
    columns = [c for c in library.columns() if c.mode != "eager" or not compiled]
    columns = columns[: 2 if some == 1 else 1]
    names = [call.name for call in CALLS if call.name.partition("-")[0] == function]
    names = names[:: 1 if library.name == "numpy" else some]
    results = [one.run() for one in checks(columns, names, FUNCTION_LAWS)]
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]
    spoken = {r.case for r in results if r.status == "pass" and r.law == "function.value"}
    assert spoken == {name for name in names if not (compiled and "damp_for" in name)}


def test_every_public_function_has_calls() -> None:
    """Or is named here, with the laws or tests that hold it."""
    elsewhere = {"aslinearoperator", "bounded", "diagnose", "load", "save", "set_num_threads"}
    functions = {n for n in ic.__all__ if inspect.isfunction(getattr(ic, n))} - elsewhere
    assert functions <= {call.name.partition("-")[0] for call in CALLS}
    assert len(NAMED) == len(CASES) + len(CALLS)  # two of a name would be one


# of torch's own code
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
@pytest.mark.parametrize(
    ("case", "laws"),
    [
        ("corner-bias", ("forward.value", "inverse.value", "log_det.value", "round_trip")),
        *(slow(name, tuple(LAWS), id=name) for name in ("corner-bias", *_MORE_COMPILED)),
    ],
)
def test_torch_compiled_obeys_the_laws(case: str, laws: tuple[str, ...]) -> None:
    todo = checks([Column("torch", "cpu", "aot_eager", "float32")], [case], laws)
    results = [one.run() for one in todo]
    assert sum(r.status == "pass" for r in results) >= (1 if case.startswith("singular") else 4)
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]


@pytest.mark.parametrize("law", LAWS)
def test_every_law_says_something(law: str) -> None:
    """None may pass because it never applies."""
    columns = [Column("numpy", "cpu", "eager", "float32")]
    columns += [Column("torch", "cpu", "eager", dtype) for dtype in ("float64", "float32")]
    assert any(one.run().status == "pass" for one in checks(columns, (*QUICK[1:], QUICK[0]), [law]))


NEAR = """forward.value inverse.value inverse.residual round_trip log_det.value log_det.inverse
    transpose transpose.inverse composition precision vjp.input"""


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_rounding_comes_near_every_bound(case: Any) -> None:
    """A part in 30,000 of what a law allows; of an exponential's, a sum of norms, in a million."""
    shares: dict[Any, float] = {}
    for dtype, laws in (("float64", NEAR), ("float32", NEAR), ("float16", NEAR[:27])):
        held = setting(case.name, Column("numpy", "cpu", "eager", dtype))
        for measure in (m for law in laws.split() for m in LAWS[law].check(held)):
            if measure.bound != 1:  # of a number
                kind = measure.what, dtype == "float16"
                shares[kind] = max(shares.get(kind, 0.0), measure.share)
    least = 1e-6 if isinstance(held.host, ic.ExponentialConv) else 3e-5
    del shares["log_det of K^T", False]
    assert least <= min(shares.values()) <= max(shares.values()) <= 1


def test_quick_runs_cases_of_each_kind_and_less_where_a_compiler_takes_long() -> None:
    nothing = dict.fromkeys(("namespace", "library", "device", "mode", "dtype"))
    columns, _ = choose(argparse.Namespace(quick=True, **nothing))
    words = ["-".join(column) for column in columns if "cuda" not in column.device]
    assert words == [
        *("numpy-cpu-eager-float64", "numpy-cpu-eager-float32"),
        *("array_api_strict-CPU_DEVICE-eager-float64", "array_api_strict-device1-eager-float32"),
        *("torch-cpu-eager-float64", "torch-cpu-eager-float32"),
        *("jax-cpu-eager-float64", "jax-cpu-jit-float32"),
    ]
    some = {(c, law) for c in QUICK for law in LAWS}
    more = {(c, law) for c in run.QUICK_MORE for law in {*LAWS} - {*run.QUICK_SHARED_LAWS}}
    in_jit = {(c, law) for c, law in some if c in run.QUICK_COMPILED_LAWS.get(law, QUICK)}
    eager = {(c, law) for c, laws in run.QUICK_EAGER_LAWS.items() for law in laws}
    wanted = {"numpy": some | more, "torch": some | more, "array_api_strict": some, "jax": in_jit}
    found = [*checks(columns, quick=True)]
    assert len(found) == len({*found})
    for column in columns:
        expected = eager if "jax-cpu-eager" in "-".join(column) else wanted[column.library]
        asked = {one for one in expected if Check(one[0], column, one[1]).speaks}
        assert {(one.case, one.law) for one in found if one.column == column} == asked


def test_compiled_code_runs_in_float32_and_where_it_is_slow_when_it_is_asked_for() -> None:
    def found(name: str, **options: bool) -> list[str]:
        columns = KNOWN[name].columns(**options)
        return [f"{c.mode} {c.dtype}" for c in columns if c.device == "cpu"]

    eager = [f"eager {dtype}" for dtype in ("float64", "float32", "float16", "bfloat16")]
    assert found("torch") == eager
    assert found("torch", every_mode=True) == [*eager, "aot_eager float32", "inductor float32"]
    assert found("jax") == [*eager, "jit float32"]
    assert [Target(KNOWN["jax"], name).on_cuda for name in ("cpu", "cuda:1")] == [False, True]
    assert found("jax", every_dtype=True)[4:] == [word.replace("eager", "jit") for word in eager]


def test_what_is_not_run_is_said() -> None:
    words: dict[str, Any] = {"namespace": None, "library": ("numpy", "torch", "jax")}
    words |= {"device": None, "mode": None}
    columns, absent = choose(argparse.Namespace(quick=False, dtype=("bfloat16",), **words))
    assert {column.library for column in columns} == {"torch", "jax"}
    no_gpu = [one.title for one in (KNOWN["torch"], KNOWN["jax"]) if len(one.devices()) == 1]
    wanted = [f"{t} on CUDA: not yet run on a GPU, there is none here" for t in no_gpu]
    assert absent == [*wanted, "NumPy: has nothing of what was asked for"]
    words |= {"library": ("jax",), "device": ("cpu",), "mode": ("jit",)}
    (column,) = choose(argparse.Namespace(quick=False, dtype=("float64",), **words))[0]
    assert (column.mode, column.dtype) == ("jit", "float64")


def test_every_operator_mixing_and_layer_is_listed() -> None:
    assert {*OWN} == {type(case.conv()) for case in cases_named(*ONE_OF_EACH)}
    public = [getattr(it, name) for name in it.__all__]
    layers = {c.__name__ for c in public if isinstance(c, type) and issubclass(c, Layer)}
    assert len(layers) > 15
    assert layers <= {kind for kind, *_ in TORCH_LAYERS.values()}
    matrices = [arguments for kind, arguments, *_ in TORCH_LAYERS.values() if kind == "Conv1x1"]
    words = {word for word, cls in mixings(Pointwise).items() if is_own(cls)}
    assert words == {(*arguments, "plain")[1] for arguments in matrices}
