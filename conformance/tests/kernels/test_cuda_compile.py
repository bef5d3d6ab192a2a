"""NVRTC without a device: machine code, PTX, and what happens where there is none."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from invconv.kernels.cuda import compile as nvrtc
from invconv.kernels.cuda.compile import CompileError, compile_text, compiled, library
from invconv.kernels.cuda.plan import Device
from invconv.kernels.cuda.source import source
from invconv_conformance.cuda import compiler
from tests.kernels.test_cuda_plan import planned


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    compiled.cache_clear()
    yield
    compiled.cache_clear()


@pytest.fixture
def needs_nvrtc() -> None:
    if library() is None:
        pytest.skip("not run: no NVRTC: pip install nvidia-cuda-nvrtc-cu12")


@pytest.mark.usefixtures("needs_nvrtc")
def test_machine_code_for_devices_that_are_known_and_ptx_for_newer_ones() -> None:
    plan = planned(3, (4, 8, 8))
    assert plan is not None
    code = compiled(plan.constants, 90)
    assert code is not None
    assert code.image.startswith(b"\x7fELF")
    assert compiled(plan.constants, 90) is code
    newer = compiled(plan.constants, 999)
    assert newer is not None
    assert b".target sm_" in newer.image
    assert newer.image.endswith(b"\0")
    for name in (b"fold", b"decide", b"solve"):
        assert b".entry " + name + b"(" in newer.image
    assert newer.image.count(b"ld.acquire.gpu") == 2  # of earlier planes, of the band above
    assert newer.image.count(b"st.release.gpu") == 3


@pytest.mark.usefixtures("needs_nvrtc")
def test_a_failed_compile_warns_once_and_says_why() -> None:
    plan = planned(3, (8, 8))
    assert plan is not None
    wrong = tuple((name, "no_type" if name == "REAL" else value) for name, value in plan.constants)
    with pytest.warns(RuntimeWarning, match=r"(?s)wavefronts solve.*no_type"):
        assert compiled(wrong, 90) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(wrong, 90) is None
    with pytest.raises(CompileError, match="no architecture up to sm_20"):
        compile_text(source(plan.constants), 20)


def test_without_nvrtc_a_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "library", lambda newest: None)
    plan = planned(3, (8, 8))
    assert plan is not None
    with pytest.warns(RuntimeWarning, match="pip install nvidia-cuda-nvrtc"):
        assert compiled(plan.constants, 90) is None


@pytest.mark.usefixtures("needs_nvrtc")
def test_a_compiler_that_is_newer_than_the_driver_is_passed_over() -> None:
    plan = planned(3, (8, 8))
    assert plan is not None
    assert library(1) is None
    assert library(99) is not None
    with pytest.warns(RuntimeWarning, match="NVRTC of CUDA 1 or before was not found"):
        assert compiled(plan.constants, 90, driver=1020) is None
    assert compiled(plan.constants, 90, driver=99000) is not None


@pytest.mark.parametrize("place", ["lib", "targets/x86_64-linux/lib"])
def test_condas_is_found_without_a_word(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for prefix in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    folder = tmp_path / place
    folder.mkdir(parents=True)
    names = ("libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so.12.9.86", "libnvrtc-builtins.so.12.9")
    for name in names:
        (folder / name).touch()
    first, second, *rest = nvrtc._candidates()
    assert [first, second] == [str(folder / "libnvrtc.so.13"), str(folder / "libnvrtc.so.12")]
    assert tuple(rest) == nvrtc._NAMES


def test_a_library_that_is_none_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["no-such-library", "libm.so.6"]))
    assert library.__wrapped__() is None


@pytest.mark.usefixtures("needs_nvrtc")
def test_nothing_spills_and_a_report_would_say_so() -> None:
    setting = (1, 8, 2, (8, 8), "corner", 4)
    reports = list(compiler.report(setting, 80))
    assert [r.function for r in reports].count("solve") == 1
    assert all(r.right for r in reports)
    plan = compiler.planned(setting, 80)
    assert plan.device == Device(80, 163 * 1024, 108)
    few = source(plan.constants).replace("MAX_THREADS, 1)", "1024, 2)")  # 32 registers a thread
    log = compile_text(few, 80, verbose=True).log
    assert not all(r.right for r in compiler.read(log, setting, plan))
