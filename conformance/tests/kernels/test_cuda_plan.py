"""The plan of the CUDA kernel, and what NVRTC makes of it without a device."""

import dataclasses
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from invconv.arrays.stencil import Sweep
from invconv.kernels.cuda.compile import CompileError, _candidates, compile_text, library, source
from invconv.kernels.cuda.plan import GRID, Device, plan_of

KIB = 1024
LIMITS = (48 * KIB, 64 * KIB, 99 * KIB, 163 * KIB, 227 * KIB)
HOPPER = Device(90, 227 * KIB, 132)


def planned(
    channels: int,
    shape: tuple[int, ...],
    size: int = 2,
    itemsize: int = 4,
    device: Device = HOPPER,
    dilation: tuple[int, ...] | None = None,
) -> Any:
    ones = (1,) * len(shape)
    corner = tuple(o for o in itertools.product(range(size), repeat=len(shape)) if any(o))
    grid = Sweep(corner, ones, dilation or ones, True, shape)
    return plan_of(channels, grid, itemsize, device)


# channels, grid, taps per axis, bytes: images that fit whole, in bands, and that do not fit
SETTINGS: tuple[tuple[int, tuple[int, ...], int, int], ...] = (
    *((12, (32, 32), 2, 4), (12, (64, 64), 2, 4), (48, (16, 16), 2, 4), (96, (8, 8), 2, 4)),
    *((3, (256, 256), 2, 4), (12, (512, 512), 2, 4), (12, (512, 512), 2, 8), (512, (4, 4), 2, 4)),
    *((512, (4, 4), 2, 8), (1, (100_000,), 7, 4), (1, (10_000,), 7, 4), (6, (8, 8, 8), 3, 4)),
    (8, (82, 128), 10, 4),  # whose bands have fewer rows than taps read, with the weights beside
    (1, (82, 40), 20, 4),  # whose bands would be best with fewer rows than taps read
)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
@pytest.mark.parametrize("apart", [(1, 1, 1), (2, 3, 2)])
def test_launches_are_possible(
    setting: tuple[int, tuple[int, ...], int, int], batch: int, apart: tuple[int, ...]
) -> None:
    dilation, ndim = apart[: len(setting[1])], len(setting[1])
    interleaved = math.prod(dilation[-2:])  # images in one, of which no tap reads another
    for shared, processors in itertools.product(LIMITS, (1, 40, 132)):
        plan = planned(*setting, Device(90, shared, processors), dilation)
        if plan is None:
            continue
        launch = plan.solve(batch)
        grid = dict(zip(GRID, launch.integers, strict=True))
        c = {name: int(value) for name, value in plan.constants if value.isdecimal()}
        rows, bands, depth = grid["rows"], grid["bands"], plan.depth
        # as the source counts: a ticket, records of rows with gaps, and perhaps weights
        numbers = (c["GAP"] + (rows + c["DEPTH"]) * grid["pitch"]) * c["RECORD"]
        numbers += c["SHARED_WEIGHTS"] * c["PLANE"] * c["CHANNELS"] ** 2
        assert launch.shared == 16 + plan.itemsize * numbers
        assert plan.weights == (2 + len(plan.order)) * c["CHANNELS"] ** 2 + 1 + 2 * c["CHANNELS"]
        assert c["RECORD"] >= c["SUMS"] * c["CHANNELS"] > c["RECORD"] - 2 * c["VECTOR"]
        assert (c["RECORD"] % c["VECTOR"], c["RECORD"] // c["VECTOR"] % 2) == (0, 1)
        assert grid["pitch"] - plan.plane[1] - c["GAP"] in (0, 1)
        assert (grid["pitch"] - c["SLOPE"]) % 2  # neighbours read different banks
        fold, columns = plan.weigh()[0], (1 + len(plan.order)) * plan.channels
        assert (fold.blocks - 1) * fold.threads < columns <= fold.blocks * fold.threads
        pairs = zip(setting[1][-2:], dilation[-2:], strict=True)
        plane = {-(-n // d) for n, d in pairs} | ({1} if ndim == 1 else set())
        assert {*plan.plane} == plane
        assert grid["images"] == batch * interleaved
        steps = [d * math.prod(setting[1][a + 1 :]) for a, d in enumerate(dilation)]
        steps += [math.prod(setting[1])] * (4 - ndim)
        assert sorted(grid[f"step_{a}"] for a in range(4)) == sorted(steps)
        assert sorted(grid[f"dilation_{a}"] for a in range(4)) == sorted(
            (1,) * (4 - ndim) + dilation
        )
        assert rows * bands >= plan.plane[0] > rows * (bands - 1)
        assert bands == 1 or rows >= max(1, depth)
        assert launch.shared == plan.band_bytes(rows) <= shared
        most = plan.most_rows
        assert most == plan.plane[0] or plan.band_bytes(most) <= shared < plan.band_bytes(most + 1)
        assert plan.channels <= launch.threads <= plan.threads <= 1024
        assert launch.threads % 32 == 0
        planes = grid["extent_0"] * grid["extent_1"]
        units = planes * plan.plane[0] * interleaved
        assert plan.most_images * units <= 2**31 - 2 < (plan.most_images + 1) * units
        assert launch.blocks == planes * bands * batch * interleaved
        assert launch.counters == (launch.blocks + 1 if planes * bands > 1 else 0)


def test_signals_of_any_length_and_wide_images_have_a_plan() -> None:
    for channels, length, shared in itertools.product((1, 2, 12, 64), (441_000, 10**7), LIMITS):
        assert planned(channels, (length,), 3, device=Device(90, shared, 132))
    wide = planned(12, (2048, 8192))
    assert (wide.plane, wide.strides[2:]) == ((8192, 2048), (1, 8192))


def test_what_the_kernel_is_not_for() -> None:
    assert planned(3, (4,) * 4) is not None
    assert planned(3, (4,) * 5) is None
    assert planned(512, (2, 2)) is not None
    assert planned(513, (2, 2)) is None
    assert planned(3, (4, 4), itemsize=2) is None
    for oldest in (69, 70):
        device = dataclasses.replace(HOPPER, architecture=oldest)
        assert (planned(3, (4, 4), device=device) is None) == (oldest == 69)
    assert planned(1, (2**31 - 1,)).most_images == 1  # the most numbers that an int counts
    assert planned(3, (4, 4), dilation=(2**40, 1)).solve(1).struct  # of 32-bit ints
    assert planned(1, (2**31,)) is None
    assert planned(1, (9,) * 4, size=6) is None  # 1295 taps


NO_NVRTC = "not run: no NVRTC: pip install nvidia-cuda-nvrtc-cu12"
needs_nvrtc = pytest.mark.skipif(library() is None, reason=NO_NVRTC)


@needs_nvrtc
def test_machine_code_for_devices_that_are_known_and_ptx_for_newer_ones() -> None:
    plan = planned(3, (4, 8, 8))
    assert compile_text(source(plan.constants), 90).image.startswith(b"\x7fELF")
    newer = compile_text(source(plan.constants), 999)
    assert b".target sm_" in newer.image
    assert newer.image.endswith(b"\0")
    for name in (b"fold", b"decide", b"solve"):
        assert b".entry " + name + b"(" in newer.image
    assert newer.image.count(b"ld.acquire.gpu") == 2  # of earlier planes, of the band above
    assert newer.image.count(b"st.release.gpu") == 3


@needs_nvrtc
def test_a_failed_compile_says_why() -> None:
    plan = planned(3, (8, 8))
    wrong = tuple((name, "no_type" if name == "REAL" else value) for name, value in plan.constants)
    with pytest.raises(CompileError, match=r"(?s)refuses the kernel.*no_type"):
        compile_text(source(wrong), 90)
    with pytest.raises(CompileError, match="no architecture up to sm_20"):
        compile_text(source(plan.constants), 20)


def test_compilers_are_tried_from_the_newest_on(tmp_path: Path, monkeypatch: Any) -> None:
    """Those of a wheel, of conda and of a toolkit; no other file of theirs."""
    wheel, conda, toolkit = "w/nvidia/a/lib/", "c/targets/b/lib/", "t/lib64/"
    libraries = conda + "libnvrtc.so.13", toolkit + "libnvrtc.so.12", wheel + "libnvrtc.so.11"
    for name in (*libraries, wheel + "libnvrtc.so.14.0.1", wheel + "libnvrtc-builtins.so.15"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "w")])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "c"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "c"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "t"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    found = [name for name in _candidates() if Path(name).is_absolute()]
    assert found == [str(tmp_path / name) for name in libraries]


@needs_nvrtc
def test_a_compiler_that_is_newer_than_the_driver_is_passed_over() -> None:
    plan = planned(3, (8, 8))
    assert library(1) is None
    assert library(99) is not None
    with pytest.raises(CompileError, match="NVRTC of CUDA 1 or before was not found"):
        compile_text(source(plan.constants), 90, driver=1020)
    assert compile_text(source(plan.constants), 90, driver=99000).image
