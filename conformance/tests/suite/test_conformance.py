"""The conformance suite: every library passes; it fails, refuses and keeps what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from invconv._cli import main
from invconv.kernels import numpy_primitives
from invconv_conformance.cases import CASES
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import LIBRARIES
from invconv_conformance.libraries.library import Column
from invconv_conformance.report.agreement import difference
from invconv_conformance.run import expected, runner
from invconv_conformance.run.result import Result
from invconv_conformance.run.runner import Task, perform, tasks
from tests.libraries.gpus import without_gpu

_SOME = QUICK[::2]  # one of each kind
# of what takes seconds to compile: a kernel, a spectrum, a triangle
_COMPILED = ("corner-2d+-", "periodic-even-dilated", "pluconv1x1-2d")
_PARTS = 6  # of the list of cases, so that processes share the work


def _tasks(library: Any, names: list[str], left_out: Sequence[str] = ()) -> list[Task]:
    """Return all there is, of what takes long to compile or to check less."""
    columns = [c for c in library.columns() if f"{c.mode} {c.dtype}" not in left_out]
    if library.name == "array_api_strict":  # whose checks make minutes of a series
        values = [law for law in LAWS if "value" in law or "vjp" in law]
        series = [name for name in names if name.startswith("exponential")]
        others = sorted({*names} - {*series})
        return [*tasks(columns[:1], series, values), *tasks(columns, others, LAWS)]
    if library.name != "jax":
        return tasks(columns, names, LAWS)
    few = [name for name in names if name in QUICK]
    half = [c for c in columns if c.dtype in ("float16", "bfloat16")]  # add only casts
    full = [c for c in columns if c not in half]
    # how JAX differentiates has test files of its own
    most = [law for law in LAWS if law != "autodiff"]
    return [*tasks(full, names, most), *tasks(half, few, most), *tasks(full, few, ["autodiff"])]


def _require_that_laws_hold(todo: list[Task]) -> None:
    found = [o for task in todo for o in perform(task)]
    results, stale = expected.mark([r for o in found for r in o.results], expected.load())
    spoken = 10 * sum(len(task.columns) for task in todo if len(task.laws) > 1)
    assert sum(r.status == "pass" for r in results) > spoken
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]
    assert not stale


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_few_cases_obey_every_law(library: Any) -> None:
    if reason := library.absent():
        pytest.skip(reason)
    if library.name == "jax":
        # eager code is compiled, too: in one dtype; of the half types, which add casts, one
        again = ("eager float32", "eager float16", "eager bfloat16")
        casts = [law for law in LAWS if law.endswith("value") or law.startswith(("no_", "vjp"))]
        todo = tasks([Column("jax", "cpu", "eager", "bfloat16")], _COMPILED[2:], casts)
        found = _tasks(library, list(_COMPILED), again)
        # to differentiate a spectrum takes as long as its other laws; test_jax_primitives.py does
        todo += [t for t in found if t.laws != ("autodiff",) or t.case != _COMPILED[1]]
    else:
        first, *others = library.columns()
        others = others[-1:] if library.name == "array_api_strict" else others  # each word once
        # a chain, of its steps' dtypes, takes as long as all others together
        less = [name for name in _SOME if name != "chain-inverses"]
        todo = [*tasks([first], _SOME, LAWS), *tasks(others, less, LAWS)]
    _require_that_laws_hold(todo)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_every_case_obeys_every_law(library: Any, part: int) -> None:
    if reason := library.absent():
        pytest.skip(reason)
    _require_that_laws_hold(_tasks(library, [case.name for case in CASES][part::_PARTS]))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_case_obeys_every_law_in_jax_eagerly(part: int) -> None:
    """JAX compiles eager code as well, operation by operation: what jit runs, in more time.

    So one dtype will do.
    """
    (jax,) = (library for library in LIBRARIES if library.name == "jax")
    names = [case.name for case in CASES if case.name not in QUICK][part::_PARTS]
    eager = [c for c in jax.columns() if c.mode == "eager" and c.dtype == "float64"]
    _require_that_laws_hold(tasks(eager, names, [law for law in LAWS if law != "autodiff"]))


# of torch's own code
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
@pytest.mark.parametrize(
    ("case", "laws"),
    [
        ("corner-bias", ("forward.value", "inverse.value", "log_det.value", "round_trip")),
        *(
            pytest.param(case, tuple(LAWS), marks=pytest.mark.slow, id=case)
            for case in ("corner-bias", "qrconv1x1-m2", "singular-periodic")
        ),
    ],
)
def test_torch_compiled_obeys_the_laws(case: str, laws: tuple[str, ...]) -> None:
    (outcome,) = perform(Task(case, (Column("torch", "cpu", "aot_eager", "float32"),), laws))
    assert sum(r.status == "pass" for r in outcome.results) >= 4
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in outcome.results if r.bad]


@pytest.mark.slow
def test_every_law_and_case_says_something() -> None:
    """No law may pass because it never applies."""
    columns = [
        Column("numpy", "cpu", "eager", "float32"),
        Column("array_api_strict", "device1", "eager", "float64"),
        Column("torch", "cpu", "eager", "float64"),
    ]
    few = ("forward.value", "singular")  # the others have said something on the first cases
    todo = [*tasks(columns, QUICK, LAWS), *tasks(columns[:1], QUICK_MORE, few)]
    results = [r for t in todo for o in perform(t) for r in o.results]
    spoken = [r for r in results if r.status == "pass"]
    assert {r.law for r in spoken} == set(LAWS)
    assert {r.case for r in spoken} == {*QUICK, *QUICK_MORE}


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: tmp_path / f"results.{name}" for name in ("json", "html", "junit")}
    options = [text for name, path in kept.items() for text in (f"--{name}", str(path))]
    few = ["--library", "numpy,torch", "--dtype", "float64,float32", "--cases", "periodic-k[12]"]
    assert main(["conformance", *few, *options]) == 0
    document = json.loads(kept["json"].read_text())
    schema = json.loads((files("invconv_conformance") / "conformance.schema.json").read_text())
    jsonschema.validate(document, schema)
    ran = [r for r in document["results"] if r["status"] != "not applicable"]
    assert all(r["status"] == "pass" and r["error"] <= r["bound"] for r in ran)
    suites = ElementTree.parse(kept["junit"]).getroot()
    assert sum(int(suite.attrib["tests"]) for suite in suites) == len(ran)
    assert "log_det.value" in kept["html"].read_text()
    assert f"{len(ran)} of {len(ran)} hold" in capsys.readouterr().out
    pairs = [(row["dtype"], row["quantity"]) for row in document["agreement"]]
    assert len(pairs) == len(set(pairs)) == 6  # three quantities, two dtypes
    assert all(row["difference"] * 2**-10 < 1 for row in document["agreement"])


@pytest.mark.slow
def test_workers_find_the_same(tmp_path: Path) -> None:
    found = []
    for workers in ("1", "2"):
        path = tmp_path / f"{workers}.json"
        options = ["--cases", "periodic-k[12]", "--workers", workers, "--json", str(path)]
        options += ["--laws", "[!s]*"]  # all but the one that takes longest
        assert main(["conformance", "--library", "numpy", "--dtype", "float32", *options]) == 0
        results = json.loads(path.read_text())["results"]
        fresh = ("warning", "diagnosis")  # which judge samples that are drawn anew
        results = [r | {"error": 0} if r["law"] in fresh else r for r in results]
        found.append([{k: v for k, v in r.items() if k != "seconds"} for r in results])
    assert found[0] == found[1]


def test_a_worker_that_dies_is_an_error_and_the_rest_is_kept() -> None:
    names = [case.name for case in CASES[:2]]
    todo = tasks([Column("numpy", "cpu", "eager", "float64")], names, ["kind"])
    (outcome,) = runner._lost(todo[0], BrokenProcessPool("gone"))
    (result,) = outcome.results
    assert (result.status, result.law, result.case) == ("error", "kind", names[0])
    assert result.bad
    assert "a worker died" in result.what


def test_results_of_different_shapes_do_not_agree() -> None:
    assert difference(np.zeros((2, 3)), np.zeros((2, 1)), "forward", "float64") == np.inf


def _off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numpy_primitives.correlate

    def wrong(stencil: Any, x: Any, *, wrap: bool = False) -> Any:
        return np.roll(right(stencil, x, wrap=wrap), int(wrap), axis=-1)

    monkeypatch.setattr(numpy_primitives, "correlate", wrong)


def test_a_failure_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _off_by_one(monkeypatch)
    few = ["--dtype", "float64", "--laws", "[fi]*.value"]
    assert main(["conformance", "--library", "numpy", "--cases", "periodic-2d", *few]) == 1
    out = capsys.readouterr().out
    assert "fail" in out
    assert "python -m invconv conformance --library numpy --device cpu --mode eager" in out


def test_expected_failures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An expected failure passes; one that does not fail is an error."""
    known = tmp_path / "known.toml"
    known.write_text(
        '[[expected]]\nlibrary = "numpy"\nlaw = "forward.value"\ncase = "periodic-2d"\n'
        'reason = "planted"\nlink = "https://example.org/1"\n'
    )
    options = ["conformance", "--library", "numpy", "--cases", "periodic-2d"]
    options += ["--laws", "[fk]*[de]", "--expected-failures", str(known)]
    assert main(options) == 1
    assert "no longer fails" in capsys.readouterr().out
    assert main([*options, "--laws", "kind"]) == 0  # another law may fail
    _off_by_one(monkeypatch)
    assert main(options) == 0
    assert "fail as expected" in capsys.readouterr().out
    for wrong in (
        '[[expected]]\nlibrary = "numpy"\nlaw = "*"\n',
        '[[expcted]]\nlibrary = "numpy"\n',
        '[[expected]]\nlibrary = 1\nlaw = "*"\nreason = "planted"\nlink = "none"\n',
    ):
        known.write_text(wrong)
        assert main(options) == 2
        assert "expected failures" in capsys.readouterr().err


def test_what_is_not_run_does_not_make_an_entry_stale() -> None:
    entry = expected.Expected("torch", "*", "a reason", "a link")
    result = Result("kind", "a case", "numpy", "cpu", "eager", "float64", "pass", "", 0, 1, 0)
    assert expected.mark([result], [entry]) == ([result], [])


def test_a_library_of_another_distribution_has_a_version() -> None:
    """As CuPy has, which comes as cupy-cuda12x, cupy-cuda13x and others."""
    (numpy,) = [library for library in LIBRARIES if library.name == "numpy"]
    other = replace(numpy, distribution="numpy-cuda99")
    assert (other.installed_as, other.version) == ("numpy", np.__version__)
    alone = replace(other, name="math")
    assert (alone.installed_as, alone.version) == (None, "unknown")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--library", "nupmy"], "--library: expected all, or some of numpy, array_api_strict"),
        pytest.param(["--library", "cupy"], "--library: CuPy: not", marks=without_gpu),
        (["--cases", "emergent-*"], "--cases: nothing is named 'emergent-*'"),
        (["--laws", "murphy"], "--laws: nothing is named 'murphy'"),
        (["--library", "numpy", "--device", "cuda:0"], "--device: expected some of cpu, got 'cuda"),
        (["--library", "numpy", "--mode", "jit"], "--mode: expected some of eager, got 'jit'"),
        (["--dtype", "float64,flaot32"], "bfloat16, got 'flaot32'"),
        (
            [
                *("--library=torch", "--mode=inductor", "--device=cpu", "--dtype=float64"),
                *("--quick", "--laws=layout", "--cases=corner-bias"),
            ],
            "nothing was checked",
        ),
        (["--library", "numpy", "--dtype", "float16", "--cases", "huge-conv1x1"], "was checked"),
        (["--namespace", "torch"], "--namespace: torch has an adapter: use --library torch"),
        (["--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        (["--namespace", "no.such"], "--namespace: cannot import no.such"),
        (["--namespace", "math"], "--namespace: math has no asarray"),
        (["--namespace", "numpy", "--library", "numpy"], "expected one of them"),
    ],
)
def test_what_cannot_run_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_library_that_nobody_adapted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that lacks functions is told so, law by law, and what it can do is shown to hold."""
    path = tmp_path / "found.json"
    options = ["--namespace", "dask.array", "--cases", "[cp][ol]*1x1-2d", "--laws", "[ftl]*[!t]"]
    options += ["--dtype", "float64"]
    assert main(["conformance", *options, "--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert "dask.array lacks what the core needs" in out
    document = json.loads(path.read_text())
    assert {c["library"] for c in document["columns"]} == {"dask.array"}
    held = {r["law"] for r in document["results"] if r["status"] == "pass"}
    assert {"forward.value", "transpose", "file"} <= held
    assert "log_det.value" not in {
        r["law"] for r in document["results"] if r["case"] == "conv1x1-2d" and r["status"] == "pass"
    }
