"""Where the compiled kernel cannot run, the plain way does, and `info` says why."""

import pickle
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import llvmlite
import numpy as np
import pytest
import torch
from llvmlite import binding

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiler import target
from invconv_conformance import info
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import Column
from invconv_conformance.run import checks
from tests.programs import python
from tests.selected import processes

LIKE: dict[str, Any] = {"numpy": np.empty(0), "torch": torch.empty(0, dtype=torch.float64)}

libraries = pytest.mark.parametrize("library", LIKE)


fail = Mock(side_effect=RuntimeError("LLVM says no"))
NO = "could not compile for this processor: LLVM says no"
ABSENT: dict[str, tuple[Any, str, Any, str]] = {
    "no llvmlite": (sys.modules, "llvmlite", None, "not installed: pip install llvmlite"),
    "an old llvmlite": (llvmlite, "__version__", "0.40.1", "llvmlite 0.40.1 is too old"),
    "an llvmlite of no version": (llvmlite, "__version__", "unknown", "unknown is too old"),
    "no new code": (machine, "_may_make_code", lambda: False, "forbids new machine code"),
    "a processor that LLVM cannot tell": (binding, "get_host_cpu_features", fail, NO),
    "a compiler that fails": (binding, "parse_assembly", fail, NO),
    "a processor of 32 bits": (sys, "maxsize", 2**31 - 1, "addresses of 32 bits"),
    "the highest byte first": (sys, "byteorder", "big", "puts the highest byte first"),
}


def forget() -> None:
    """Let the next question about this processor be a new one."""
    for known in (machine.reason, machine.compiled, machine.prepare, target.host):
        known.cache_clear()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Return a monkeypatch inside which, and after which, this processor is looked at anew."""
    forget()
    yield monkeypatch
    monkeypatch.undo()
    forget()


def corner(library: str) -> tuple[ic.InvertibleConv, Any, Any]:
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(3, 2, direction=(1, -1), rng=rng)
    x = rng.standard_normal((2, 3, 5, 6))
    y = conv.forward(x)
    like = LIKE[library]
    return conv.asarrays(like), x, y if library == "numpy" else torch.as_tensor(y)


@libraries
@pytest.mark.parametrize("how", ABSENT)
def test_the_plain_way_runs(how: str, library: str, forgetful: pytest.MonkeyPatch) -> None:
    conv, x, y = corner(library)
    place, name, value, words = ABSENT[how]
    (forgetful.setitem if place is sys.modules else forgetful.setattr)(place, name, value)
    forget()
    prepared = conv.prepare((5, 6))
    assert repr(prepared.plan).endswith("wavefront', at_the_pixel='cached inverse', levels=10)")
    assert np.abs(to_numpy(prepared.inverse(y)) - x).max() < 1e-12
    reason = machine.reason()
    assert reason is not None
    assert words in reason
    assert words in info._kernel().replace("\\[", "[")
    assert np.abs(to_numpy(conv.forward(prepared.inverse(y))) - to_numpy(y)).max() < 1e-12


@libraries
def test_an_unknown_processor_runs_the_kernel(library: str, forgetful: pytest.MonkeyPatch) -> None:
    """LLVM knows what it can do all the same."""
    forgetful.setattr(binding, "get_host_cpu_name", lambda: "generic")
    conv, x, y = corner(library)
    forget()
    prepared = conv.prepare((5, 6))
    assert prepared.plan.method == "compiled kernel"
    assert np.abs(to_numpy(prepared.inverse(y)) - x).max() < 1e-12
    assert machine.reason() is None
    assert "generic" in info._kernel()


@processes
def test_a_prepared_inverse_goes_where_there_is_no_llvmlite(library: str, tmp_path: Path) -> None:
    conv, x, y = corner(library)
    prepared = conv.prepare((5, 6))
    assert prepared.plan.method == "compiled kernel"
    (tmp_path / "prepared").write_bytes(pickle.dumps((prepared, y, x)))
    code = """
        import pickle, sys
        import numpy as np
        sys.modules["llvmlite"] = None
        with open("prepared", "rb") as file:
            prepared, y, x = pickle.load(file)
        print(prepared.plan.method, prepared.plan == prepared.conv.prepare((5, 6)).plan)
        assert np.abs(np.asarray(prepared.inverse(y)) - x).max() < 1e-12
        with open("returned", "wb") as file:
            pickle.dump(prepared, file)
    """
    assert python("-c", textwrap.dedent(code), cwd=tmp_path).stdout == "pitched wavefront True\n"
    returned = pickle.loads((tmp_path / "returned").read_bytes())
    assert np.abs(to_numpy(returned.inverse(y)) - x).max() < 1e-12


@libraries
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.slow
def test_laws_hold_without_llvm(dtype: str, library: str, forgetful: pytest.MonkeyPatch) -> None:
    forgetful.setitem(sys.modules, "llvmlite", None)
    assert machine.reason() is not None
    names = ("corner", "raster", "emerging", "chain", "ill", "tiny", "huge")
    asked = ("forward", "inverse", "vjp.", "same", "iso", "layout", "empty")
    laws = tuple(name for name in LAWS if name.startswith(asked))
    cases = [case.name for case in CASES if case.name.startswith(names) and not case.singular]
    todo = checks([Column(library, "cpu", "eager", dtype)], cases, laws)
    results = [one.run() for one in todo]
    assert not [(r.reproduce, r.what, r.error, r.bound) for r in results if r.bad]
    assert sum(r.status == "pass" for r in results) > 300
    compared = {r.what for r in results if r.law == "same_bits" and r.status == "pass"}
    assert compared == {"the kernel, where it is there"}


def test_a_processor_asked_again_is_the_same(forgetful: pytest.MonkeyPatch) -> None:
    before = target.host()  # by which XLA's handlers are remembered: it takes one of a name
    forget()
    assert target.host() == before


@pytest.mark.parametrize(
    ("triple", "features", "wanted"),
    [
        ("x86_64-linux", "avx512f avx2 fma", (512, 32, True)),
        ("x86_64-linux", "avx2 fma", (256, 16, True)),
        ("x86_64-linux", "avx2", (128, 16, False)),
        ("x86_64-linux", "fma", (128, 16, True)),
        ("aarch64-linux", "neon", (128, 32, True)),
        ("arm64-darwin", "", (128, 32, True)),
    ],
)
def test_what_a_processor_has(
    triple: str, features: str, wanted: Any, forgetful: pytest.MonkeyPatch
) -> None:
    there = {name: name in features.split() for name in ("avx512f", "avx2", "fma", "neon")}
    forgetful.setattr(binding, "get_host_cpu_features", lambda: binding.FeatureMap(there))
    forgetful.setattr(binding, "get_process_triple", lambda: triple)
    found = target.host()
    assert (found.triple, (found.bits, found.registers, found.fma)) == (triple, wanted)
