"""The suite by pytest and by its front: what it selects, shows, refuses, keeps and survives."""

import importlib
import json
import os
import re
import shlex
import signal
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

import invconv as ic
from invconv._cli import main
from invconv.arrays.namespaces import namespace
from invconv.kernels import numpy_primitives
from invconv_conformance import plugin, run
from invconv_conformance.laws import LAWS
from invconv_conformance.laws.law import Law, Measure, truth
from invconv_conformance.libraries import (
    LIBRARIES,
    Column,
    lacking,
    required_functions,
    unadapted,
)
from invconv_conformance.report import agreement, difference
from invconv_conformance.run import QUICK, checks, few_eager
from tests.programs import ENVIRONMENT, ROOT, python

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_files(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/of-pytest/bin/invconv", "conformance"])
    kept = {name: tmp_path / f"results.{name}" for name in ("json", "html", "junit")}
    options = [text for name, path in kept.items() for text in (f"--{name}", str(path))]
    few = ["--library=numpy,torch", "--dtype=float64,float32"]
    names = "numpy-periodic-k1 or torch-periodic-k1"
    assert main(["conformance", *few, "-k", names, *options]) == 0
    document = json.loads(kept["json"].read_text())
    assert document["command"] == "python -m invconv conformance"
    schema = json.loads((files("invconv_conformance") / "conformance.schema.json").read_text())
    jsonschema.validate(document, schema)
    ran = [r for r in document["results"] if r["status"] != "not applicable"]
    assert all(r["status"] == "pass" and r["error"] <= r["bound"] for r in ran)
    suites = ElementTree.parse(kept["junit"]).getroot()
    assert sum(int(suite.attrib["tests"]) for suite in suites) == len(document["results"])
    assert "log_det.value" in kept["html"].read_text()
    assert f"{len(ran)} of {len(ran)} hold" in capsys.readouterr().out
    assert sum(r["seconds"] for r in ran) <= document["seconds"] < 600
    pairs = [(row["dtype"], row["quantity"]) for row in document["agreement"]]
    assert len(pairs) == len(set(pairs)) == 6  # three quantities, two dtypes
    assert all(row["difference"] * 2**-10 < 1 for row in document["agreement"])


@pytest.mark.slow
def test_workers_find_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    found = []
    for workers in ("1", "2"):
        path = tmp_path / f"{workers}.json"
        # files are whole before a reader of the tables can end the command
        monkeypatch.setattr(plugin, "show", lambda *_, path=path: path.stat())
        options = ["--library=numpy", "--dtype=float32", "-k"]
        options += ["(numpy-conv1x1-2d or numpy-actnorm-2d) and not warning"]
        assert main(["conformance", *options, "--workers", workers, "--json", str(path)]) == 0
        document = json.loads(path.read_text())
        fresh = ("diagnosis", "guard")  # which judge samples that are drawn anew
        results = [r | {"seconds": 0} for r in document["results"] if r["law"] not in fresh]
        found.append((results, document["agreement"]))
        cases = [r["case"] for r in results]
        assert cases == sorted(cases, key=[*run.NAMED].index)
    assert found[0] == found[1]


def pytest_alone(folder: Path, *words: str, status: int) -> str:
    """Run the suite by pytest's own command, as the author of an array library does."""
    suite = ["--pyargs", "invconv_conformance", "-c", os.devnull, "--library=numpy"]
    suite += ["-p", "invconv_conformance.plugin", "--dtype=float64"]
    command = "-m", "pytest", *suite, *words
    done = python(*command, cwd=folder, status=status, PYTEST_ADDOPTS="")
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_suite_in_a_clone_needs_what_the_extra_all_has(tmp_path: Path) -> None:
    """Not Hypothesis: with it, the configuration of our own tests would need it too."""
    (tmp_path / "hypothesis.py").write_text("raise ImportError('not installed')\n")
    words = "-m", "pytest", "-p", "no:hypothesispytest", "--pyargs", "invconv_conformance"
    few = "--library=numpy", "--dtype=float64", "-k", "numpy-actnorm-2d and kind"
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    out = python(*words, *few, cwd=ROOT, PYTHONPATH=path, PYTEST_ADDOPTS="").stdout
    assert "1 of 1 hold" in out


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    """As of a library that crashes: the process of pytest-xdist dies, not the run."""
    text = "import os\ndef pytest_runtest_call(item): '::kind' in item.name and os._exit(7)\n"
    (tmp_path / "crashing.py").write_text(text)
    few = ["-p", "crashing", "-n", "1", "--dist=loadscope", "--invconv-json", "found.json", "-k"]
    out = pytest_alone(tmp_path, *few, "numpy-actnorm-2d and (kind or value)", status=1)
    results = {r["law"]: r for r in json.loads((tmp_path / "found.json").read_text())["results"]}
    assert results["kind"]["status"] == "error"
    assert "crashed" in results["kind"]["what"]
    assert results["forward.value"]["status"] == results["inverse.value"]["status"] == "pass"
    assert "crashed" in out


def _off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numpy_primitives.apply

    def wrong(family: Any, w: Any, x: Any) -> Any:
        return np.roll(right(family, w, x), 1, axis=-1)

    monkeypatch.setattr(numpy_primitives, "apply", wrong)


def test_a_failure_is_shown(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _off_by_one(monkeypatch)
    few = ["--dtype", "float64", "-k", "numpy-periodic-k2:: and value"]
    assert main(["conformance", "--library", "numpy", *few]) == 1
    out = capsys.readouterr().out
    assert "fail" in out
    command = r"python -m invconv (conformance .* -k 'numpy-periodic-k2::forward.value.*')"
    (again,) = re.findall(command, out)
    assert main(shlex.split(again)) == 1
    assert "0 of 1 hold: 1 laws on 1 cases" in capsys.readouterr().out


@pytest.mark.slow
def test_expected_failures(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    known = tmp_path / "known.toml"
    known.write_text('"numpy-periodic-2d forward.value *" = "planted: https://example.org/1"\n')
    options = ["conformance", "--library", "numpy", "--expected-failures", str(known)]
    assert main([*options, "-k", "numpy-periodic-2d and (forward.value or kind)"]) == 1
    assert "XPASS(strict)" in capsys.readouterr().out
    assert main([*options, "-k", "numpy-periodic-2d and kind"]) == 0  # another law may fail
    _off_by_one(monkeypatch)
    assert main([*options, "-k", "numpy-periodic-2d and (forward.value or kind)"]) == 0
    assert "fail as expected" in capsys.readouterr().out
    # of no test, though another matches all; of a law that says nothing of compiled code
    for wrong in ("numpy-periodic-2d forward.value *-flaot64", "torch-* errors *-inductor-*"):
        others = '"*" = "all"\n"torch-* kind cuda:0-eager-*" = "no GPU"\n'
        known.write_text(f'{others}"{wrong}" = "why"\n')
        assert main([*options, "-k", "numpy-periodic-2d and kind"]) == 2
        assert f"no test has a name as '{wrong}'" in capsys.readouterr().err
    for wrong in ('[[expected]]\nlibrary = "numpy"\n', '"numpy-* forward.value *" = 1\n', "="):
        known.write_text(wrong)
        assert main(options) == 2
        assert "expected failures" in capsys.readouterr().err


def test_a_library_of_another_distribution_has_a_version() -> None:
    """As CuPy has, which comes as cupy-cuda12x, cupy-cuda13x and others."""
    (numpy,) = [library for library in LIBRARIES if library.name == "numpy"]
    other = replace(numpy, distribution="numpy-cuda99")
    assert (other.installed_as, other.version) == ("numpy", np.__version__)
    alone = replace(other, name="math")
    assert (alone.installed_as, alone.version) == (None, "unknown")
    assert unadapted("array_api_strict").host == ("default",)  # whose values cost nothing to read


def test_a_library_that_nobody_adapted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that lacks functions is told so, law by law, and what it can do is shown to hold."""
    path = tmp_path / "found.json"
    few = "conv1x1-2d and (forward.value or transpose or file or log_det.value)"
    few += " and not exp and not inverse and not transposed"
    options = ["--namespace=dask.array", "--dtype=float64", "--seconds=600", f"--json={path}"]
    assert main(["conformance", *options, "-k", few]) == 1
    out = capsys.readouterr().out
    assert "dask.array lacks what the core needs" in out
    assert (
        "python -m invconv conformance --namespace dask.array --mode eager --dtype float64" in out
    )
    document = json.loads(path.read_text())
    assert {c["library"] for c in document["columns"]} == {"dask.array"}
    held = {(r["case"], r["law"]) for r in document["results"] if r["status"] == "pass"}
    assert {"forward.value", "transpose", "file"} <= {law for _, law in held}
    assert ("conv1x1-2d", "log_det.value") not in held


def test_wrong_numbers_name_the_functions_that_they_share(monkeypatch: Any, capsys: Any) -> None:
    """Of a library whose sums over several axes are wrong, and those over one axis are not."""
    theirs = importlib.import_module("array_api_compat.dask.array")
    right = theirs.sum

    def wrong(x: Any, /, *, axis: Any = None, **options: Any) -> Any:
        return (1 + isinstance(axis, tuple)) * right(x, axis=axis, **options)

    monkeypatch.setattr(theirs, "sum", wrong)
    options = ["--namespace=dask.array", "--dtype=float64", "--mode=eager"]
    laws = "actnorm-2d and not guard and (vjp or value or transpose or kind)"
    assert main(["conformance", *options, "--quick", "-k", laws]) == 1
    out = capsys.readouterr().out
    assert "array functions that wrong numbers share: sum over several axes (1 of" in out
    assert namespace(theirs.ones(1)) is theirs  # as before


@pytest.mark.slow
def test_the_readme_selects_the_tests_that_it_says(tmp_path: Path) -> None:
    (words,) = {*re.findall('-k "(.*?)"', README.read_text(encoding="utf-8"))}
    out = pytest_alone(tmp_path, "-k", words, "--collect-only", "-q", status=0)
    tests = re.findall(r"test_laws.py::(.*)", out)
    assert len(tests) > 40
    assert [name for name in tests if not re.search("periodic.*::inverse[.]", name)] == []


@pytest.mark.slow
def test_pytest_selects_and_the_front_reads_no_configuration(tmp_path: Path) -> None:
    out = pytest_alone(tmp_path, "-k", "actnorm-2d and (forward or autodiff)", status=0)
    assert "1 of 1 hold: 1 laws on 1 cases" in out  # the other law says nothing
    out = pytest_alone(tmp_path, "--invconv-json", "/none/x.json", status=4)
    assert "expected a folder to write in" in out
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('a conftest of the user')\n")
    few = ["--library", "numpy", "--dtype", "float64", "-k", "numpy-actnorm-2d and forward"]
    front = "-m", "invconv", "conformance", *few
    done = python(*front, cwd=tmp_path, PYTEST_ADDOPTS="--no-such-option", PYTEST_PLUGINS="no_such")
    assert "1 of 1 hold" in done.stdout


def test_a_library_that_is_slow_ends_in_time(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Unless it is one that we know."""

    def slow(s: Any) -> Any:
        yield truth(True, "begun")
        time.sleep(0.4 if s.target.library.name == "numpy" else 60)

    monkeypatch.setitem(LAWS, "kind", replace(LAWS["kind"], check=slow))
    monkeypatch.setattr(plugin, "A_CHECK", 0.2)
    options = ["--namespace", "dask.array", "--dtype", "float64", "--seconds", "4"]
    start = time.perf_counter()
    handler = signal.getsignal(signal.SIGALRM)
    assert main(["conformance", *options, "-k", "kind"]) == 1
    assert time.perf_counter() - start < 40
    assert signal.getsignal(signal.SIGALRM) is handler
    with plugin.limited():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    out = capsys.readouterr().out
    assert "TimeoutError: took more than 0.2 s" in out
    assert "checks, since 4 s were over (--seconds)" in out
    assert main(["conformance", *options[:-1], "1e-9", "-k", "kind"]) == 2  # nothing was checked
    assert main(["conformance", "--library=numpy", "-k", "numpy-actnorm-1d and kind and 64"]) == 0


def test_a_run_that_was_interrupted_stays_so() -> None:
    session, collected = Mock(), plugin.Suite(Mock(), [], [], {})
    left_out = Mock(spec=["nodeid", "failed", "skipped"], failed=False)
    left_out.nodeid = "test_laws.py::numpy-actnorm-2d::kind[cpu-eager-float64]"
    collected.pytest_runtest_logreport(left_out)
    assert collected.late == 1
    for status, ends in ((0, 5), (2, 2)):
        session.exitstatus = status
        collected.pytest_sessionfinish(session)
        assert session.exitstatus == ends


# as MLX on Linux: arrays without a device, and a namespace with few functions
MODULE = """
import sys
import numpy as np
from numpy import abs, exp, float32, float64, linalg

class Array:
    def __init__(self, values, dtype):
        self.values = np.asarray(values, dtype)
        self.shape, self.ndim, self.dtype = self.values.shape, self.values.ndim, self.values.dtype
    def __array_namespace__(self, api_version=None):
        return sys.modules[__name__]
    def __dlpack_device__(self):
        raise ValueError("no device is known")
    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.dtype)

def asarray(values, dtype=float32, **options):
    return Array(values, dtype)
"""


def test_what_arrays_lack_is_said_once(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "few_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    files = {kind: tmp_path / f"found.{kind}" for kind in ("json", "html")}
    options = [f"--{kind}={path}" for kind, path in files.items()]
    assert main(["conformance", "--namespace", "few_functions", "--quick", *options]) == 2
    out = " ".join(capsys.readouterr().out.split())
    sentence = "few_functions: no law can run, since its arrays lack a device; functions that the"
    assert sentence in out
    assert "fail" not in out
    (line,) = json.loads(files["json"].read_text())["not_run"]
    assert line.startswith(sentence)
    assert "concat" in line
    assert "exp," not in line
    assert sentence in files["html"].read_text()
    x = importlib.import_module("few_functions").asarray([1.0])
    with pytest.raises(TypeError, match=r"like: .* got one of few_functions, which has none"):
        ic.Conv1x1(np.eye(2)).asarrays(like=x)


def test_who_agrees_least_is_found_in_each_dtype() -> None:
    """Among pairs of columns of that dtype: in the first case, though others come after it."""
    names = ("numpy", "float64"), ("torch", "float64"), ("jax", "float32"), ("numpy", "float32")
    columns = [Column(name, "cpu", "eager", dtype) for name, dtype in names]
    off = {"corner-bias": (0, 3, 0, 7), "conv1x1-2d": (0, 2, 0, 5), "actnorm-2d": (0, 0, 0, 0)}
    unit = {"float64": 2.0**-52, "float32": 2.0**-23}
    found = [
        (column, case, {"forward": np.asarray([-1.0, unit[column.dtype] * n])})
        for case, numbers in off.items()
        for column, n in zip(columns, numbers, strict=True)
    ]
    rows = [tuple(row.values()) for row in agreement(found)]
    pairs = ("float32", "jax cpu eager", 7.0), ("float64", "numpy cpu eager", 3.0)
    assert [(r[0], r[2], r[4]) for r in rows] == [*pairs]
    assert {r[5] for r in rows} == {"corner-bias"}


def test_values_that_cannot_be_read_or_have_other_shapes_do_not_agree(monkeypatch: Any) -> None:
    assert difference(np.zeros((2, 3)), np.zeros((2, 1)), "forward", "float64") == np.inf
    one, other = np.asarray([[0.25, 0.25], [0.25 + 2.0**-23, 0.25]])
    assert difference(one, other, "forward", "float32") == pytest.approx(4)
    assert difference(one, other, "log_det", "float16") == 1
    column = Column("numpy", "cpu", "eager", "float64")
    monkeypatch.setattr(run, "to_numpy", Mock(side_effect=RuntimeError("no values")))
    assert run.outputs(run.setting("corner-bias", column)) == {}


@pytest.mark.parametrize("wrong", [1.5, np.inf, np.nan])
@pytest.mark.parametrize("place", range(3))
def test_any_measure_of_a_law_may_break_it(place: int, wrong: float) -> None:
    setting = run.setting("actnorm-2d", Column("numpy", "cpu", "eager", "float64"))

    def held(errors: list[float]) -> run.LawVerdict:
        measures = (Measure(str(n), 2 * error, 2.0) for n, error in enumerate(errors))
        return run.check(Law("own", "", "", lambda s: measures), setting)

    errors = [0.5] * 3
    errors[place] = 0.75
    assert (held(errors).status, held(errors).what) == ("pass", str(place))
    errors[place] = 1.0
    assert held(errors).status == "pass"  # the bound itself
    errors[place] = wrong
    assert (held(errors).status, held(errors).what) == ("fail", str(place))
    assert held([]).status == "not applicable"
    assert all(law.definition for law in LAWS.values())
    assert held([0.5, "no number"]).status == "error"  # type: ignore[list-item]
    assert held([np.float64(1e308)]).status == "error"  # of NumPy, which warns of overflow


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ("--library=numpy", 8),
        ("--library=numpy --workers 3", 3),
        ("--library=numpy -k kind", 1),
        ("--library=array_api_strict --quick", 1),  # few cases
        ("--library=jax --quick", 8),
        ("--library=cuda", 4),  # which share a GPU
    ],
)
def test_the_front_starts_a_process_a_core(options: str, processes: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in ("OMP_NUM_THREADS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    if "cuda" in options:
        columns = [Column("torch", "cuda:0", "eager", "float32")]
        monkeypatch.setattr("invconv_conformance.run.choose", lambda options: (columns, []))
    asked: dict[str, Any] = {}

    def run(words: list[str]) -> int:
        asked.update(os.environ, words=words)
        return 0

    monkeypatch.setattr(pytest, "main", run)
    assert main(["conformance", *options.split()]) == 0
    several = [f"--numprocesses={processes}"] if processes > 1 else []
    assert [word for word in asked["words"] if "processes" in word] == several
    assert asked.get("OMP_NUM_THREADS") == ("1" if several else None)
    assert ("JAX_COMPILATION_CACHE_DIR" in asked) == bool(several)
    assert asked["MKL_NUM_THREADS"] == "5"  # the user's
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_front_gives_pytest_every_option(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    options = "--library numpy,torch --device cpu --mode eager --dtype float64 --seconds 5 --quick"
    options += " --json a.json --html b.html --junit c.xml -k one"
    for status, found in enumerate((0, 1, 130, 2, 2, 2)):
        asked = Mock(return_value=status)
        monkeypatch.setattr(pytest, "main", asked)
        assert main(["conformance", *options.split()]) == found
    assert "nothing was checked: no test has such a name" in capsys.readouterr().err
    here = {f"{name}={tmp_path}" for name in ("--invconv-json", "--invconv-html", "--junitxml")}
    words = [word for word in asked.call_args.args[0] if word.startswith(("--", "-k"))]
    wanted = "--library=numpy,torch --device=cpu --mode=eager --dtype=float64 --seconds=5.0"
    assert {*wanted.split(), "--quick"} <= {*words}
    assert here == {word.rpartition("/")[0] for word in words if str(tmp_path) in word}
    asked.return_value = 0
    for keyword in ("one", ""):
        assert main(["conformance", "--library", "numpy", "-k", keyword]) == 0
        assert asked.call_args.args[0][-2:] == ["-k", keyword]
    assert main(["conformance", "--library", "numpy"]) == 0
    given = {word.partition("=")[0] for word in asked.call_args.args[0]}
    assert not given & {"--quick", "--device", "--invconv-json", "-k"}


def test_eager_code_that_is_compiled_too_runs_a_few_cases() -> None:
    columns = [Column("jax", "cpu", mode, "float32") for mode in ("eager", "jit")]
    names = [QUICK[0], "corner-k1"]
    found = [(one.case, one.column.mode) for one in checks(columns, names, ["kind"])]
    alone = [one.case for one in checks(columns[:1], names, ["kind"])]
    assert found == [(QUICK[0], "jit"), (QUICK[0], "eager"), ("corner-k1", "jit")]
    assert alone == names
    by_mode = {column.mode: column for column in columns}
    results: list[Any] = [Mock(case=case, column=by_mode[mode]) for case, mode in found]
    for some, count in ((results, "1 of 2"), (results[2:], "1 of 1")):
        (line,) = few_eager(columns, some)
        said = f"JAX, eager: {count} cases, which run compiled; --library jax --mode"
        assert line.startswith(said)
    assert few_eager(columns, results[:2]) == few_eager(columns[1:], results) == []


def test_what_the_core_needs_of_a_library() -> None:
    needed = required_functions()
    some = {"": {"astype", "matmul", "where"}, "fft": {"irfftn", "rfftn"}, "linalg": {"slogdet"}}
    assert {name for name in some if some[name] <= {*needed[name]}} == {*needed}
    assert not {"fft", "linalg", "__name__"} & {*needed[""]}
    few: Any = Mock(spec=[name for name in needed[""] if name != "where"])
    assert lacking(few) == ["where", *(f"{n}.{m}" for n in ("fft", "linalg") for m in needed[n])]
