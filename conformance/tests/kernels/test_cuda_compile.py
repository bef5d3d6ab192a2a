"""NVRTC without a device: machine code, PTX, and what happens where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from invconv.kernels.cuda.compile import CompileError, compile_text, compiled, library, source
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


@pytest.mark.usefixtures("needs_nvrtc")
def test_a_compiler_that_is_newer_than_the_driver_is_passed_over() -> None:
    plan = planned(3, (8, 8))
    assert plan is not None
    assert library(1) is None
    assert library(99) is not None
    with pytest.warns(RuntimeWarning, match="NVRTC of CUDA 1 or before was not found"):
        assert compiled(plan.constants, 90, driver=1020) is None
    assert compiled(plan.constants, 90, driver=99000) is not None
