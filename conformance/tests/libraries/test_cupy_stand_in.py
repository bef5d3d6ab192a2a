"""The CuPy adapter without a GPU: what it runs and calls, on a stand-in for CuPy.

Not yet run on a GPU: ``pytest -m gpu`` does that where there is one (`tests.test_cupy_gpu`).
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.libraries.stand_in_cupy import runner

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs Python with the stand-in for CuPy."""
    return runner(tmp_path_factory.mktemp("cupy"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("--quick", "not exponential and (2d or bias)"), id="quick"),
        # of exponentials two: all take minutes here
        pytest.param(
            ("--workers=2", "not exponential", "exponential-one"), id="all", marks=pytest.mark.slow
        ),
    ],
)
def calls(
    run: Run, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> list[tuple[str, int, list[str]]]:
    """Return (name, positional arguments, keywords) of what the conformance suite calls in CuPy."""
    path = tmp_path_factory.mktemp("calls") / "calls.jsonl"
    suite = ("-m", "invconv", "conformance", "--library", "cupy", "--dtype", "float32")
    how, *patterns = request.param
    for pattern in patterns:
        done = run(*suite, how, "-k", pattern, STAND_IN_CALLS=str(path))
        assert done.returncode == 0, done.stdout + done.stderr
    lines = set(path.read_text(encoding="utf-8").splitlines())
    return [tuple(json.loads(line)) for line in sorted(lines)]


def test_the_suite_holds_and_reads_no_value(calls: list[tuple[str, int, list[str]]]) -> None:
    """No transfer to the host, no wait: a read raises, see `tests.libraries.stand_in_cupy`."""
    names = {name for name, _, _ in calls}
    native = {"cupy.lib.stride_tricks.as_strided", "cupyx.scipy.linalg.solve_triangular"}
    assert native | {"cupy.matmul"} <= names


def test_the_real_package_has_every_name_and_takes_the_arguments(
    calls: list[tuple[str, int, list[str]]],
) -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'invconv[cupy]'")
    assert len(calls) > 50
    for name, positional, keywords in calls:
        found = _parameters(name)
        if isinstance(found, inspect.Signature):
            found.bind(*[None] * positional, **dict.fromkeys(keywords))
        else:  # compiled: the first line of its documentation is the signature
            assert all(f"{keyword}=" in found or f"{keyword}," in found for keyword in keywords)


def test_arrays_of_the_real_package_have_every_attribute() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'invconv[cupy]'")
    used = (
        "T data device dtype itemsize nbytes ndim shape size strides __setitem__ __dlpack_device__"
    )
    assert not [name for name in used.split() if not hasattr(cupy.ndarray, name)]


def _parameters(name: str) -> inspect.Signature | str:
    """Return what a function of the real package takes, as its documentation if it is compiled."""
    module, _, attribute = name.replace("ndarray", "cupy.ndarray").rpartition(".")
    if module == "cupyx.scipy.linalg":
        return _from_source("cupyx/scipy/linalg/_solve_triangular.py", attribute)
    parts = module.split(".")
    owner = functools.reduce(getattr, parts[1:], importlib.import_module(parts[0]))
    function = getattr(owner, attribute)
    try:
        return inspect.signature(function)
    except ValueError:
        return (function.__doc__ or "").partition("\n")[0]


def _from_source(path: str, name: str) -> inspect.Signature:
    """Return a signature without importing what loads cuBLAS."""
    import cupy

    file = Path(cupy.__file__).parents[1] / path
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    space: dict[str, Any] = {}
    exec(f"def {name}({ast.unparse(found.args)}): pass", space)
    return inspect.signature(space[name])


SOLVE = """\
import array_api_compat.cupy as xp, numpy as np
import invconv, invconv.kernels.wavefront, invconv_cupy.primitives as p
y = xp.asarray(np.ones((1, 2, 3, 3)))
conv = invconv.AutoregressiveConv.init(2, rng=np.random.default_rng(0), like=y)
conv.inverse(y)
"""


ELSEWHERE = """\
import pytest, re, types
import cupy
conv.prepare((3, 3))
prepared, calls = conv.prepare((3, 3)), (conv.forward, conv.inverse, conv.inverse_and_log_det)
cupy.cuda.Device = lambda: types.SimpleNamespace(id=1)
for call in (*[lambda f=f: f(y) for f in calls], lambda: conv.log_det((3, 3)),
             lambda: conv.prepare((3, 3)), lambda: prepared.inverse(y)):
    with pytest.raises(ValueError, match=re.escape("make that current: with cupy.cuda.Device(0):")):
        call()
"""


PRECISION = """\
import cupy._core as core, array_api_compat.cupy as xp, numpy as np, pytest
import invconv, invconv_cupy.primitives as p
from invconv_cupy.primitives import full_precision
core.set_compute_type("float32", 3)
y = xp.asarray(np.ones((1, 2, 3, 3), np.float32))
conv = invconv.AutoregressiveConv.init(2, rng=np.random.default_rng(0), like=y)
seen = []
def watched(module):
    original = module.matmul
    def matmul(*arguments, **options):
        seen.append(core.get_compute_type("float32"))
        return original(*arguments, **options)
    module.matmul = matmul
watched(p.cupy)
conv.inverse_vjp(conv.forward(y), y)
assert len(seen) > 5 and set(seen) == {0}, seen
assert core.get_compute_type("float32") == 3
with pytest.raises(KeyError), full_precision(), full_precision():
    raise KeyError
assert core.get_compute_type("float32") == 3
"""


FILES = """\
import array_api_compat.cupy as xp, numpy as np, sys
import invconv
from invconv.arrays.namespaces import to_numpy
rng, like = np.random.default_rng(0), xp.empty(0, dtype=xp.float32)
host = invconv.Chain([invconv.PLUConv1x1.init(2, rng=rng), invconv.EmergingConv.init(2, rng=rng)])
conv = host.asarrays(like)
invconv.save(conv, sys.argv[1])
back = invconv.load(sys.argv[1], like=like)
for name, array in back._arrays().items():
    assert type(array) is type(like), name
    assert np.array_equal(to_numpy(array), to_numpy(conv._arrays()[name])), name
"""


PICKLES = """\
import pickle
s = conv.prepare((3, 3))._state.solver
before = dict(vars(s))
s(y)
assert type(pickle.loads(pickle.dumps(s))) is p.CausalSolver
assert vars(s) == before and s.state.ops is p.CUPY
"""
PROGRAMS = {
    "a device that is not current is named": SOLVE + ELSEWHERE,
    "TF32 decides no result": PRECISION,
    "files are written and read": FILES,
    "solvers can be pickled and keep no buffer": SOLVE + PICKLES,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(name: str, run: Run, tmp_path: Path) -> None:
    done = run("-c", PROGRAMS[name], str(tmp_path / "conv.safetensors"))
    assert done.returncode == 0, done.stderr
