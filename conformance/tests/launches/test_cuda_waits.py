"""No step of a layer on CUDA makes the host wait: on fake tensors, and on a GPU if there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import invconv_torch
from tests.conftest import TORCH_LAYERS

HERE = Path(__file__).parent
SOME = ("emerging-2d", "periodic-2d", "qr", "circulant")
READ = "aten._local_scalar_dense.default"
Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a function that looks at layers in a fork of a process that has imported all."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    torch_folder = Path(torch.__file__).parent
    target = tmp_path_factory.mktemp("guard") / "cuda_without_gpu.so"
    libraries = torch_folder / "lib"
    flags = ["-std=c++20", "-O0", "-w", "-shared", "-fPIC", "-I", str(torch_folder / "include")]
    link = [f"-L{libraries}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{libraries}", "-o", str(target)]
    command = ["g++", *flags, str(HERE / "cuda_without_gpu.cpp"), *link]
    subprocess.run(command, check=True, timeout=300)

    command = [sys.executable, "-m", "tests.launches.waits", str(target)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: Any = subprocess.Popen(command, cwd=HERE.parents[1], bufsize=1, **pipes)
    with process:

        def look(*arguments: str) -> list[str]:
            process.stdin.write(f"{' '.join(arguments)}\n")
            lines = [""]
            while not lines[-1].startswith("ended with "):
                lines.append(process.stdout.readline().rstrip())
                assert process.poll() is None
            assert lines.pop() == "ended with 0", lines
            return lines[1:]

        yield look
        process.stdin.close()


def operations(lines: list[str]) -> int:
    """Return how many operations were looked at, of which none waits."""
    *waiting, last = lines
    assert waiting == []
    return int(last.split()[0])


def test_no_step_of_a_layer_waits(run: Run) -> None:
    assert operations(run(*SOME)) > 10_000


def test_nor_where_the_kernel_is_launched(run: Run, tmp_path: Path) -> None:
    lines = run("autoregressive-2d", "emerging-2d", "--half", "--launched", str(tmp_path))
    assert operations(lines) > 1_000
    assert int(lines[-1].split()[-2]) > 20


def test_an_exponential_waits_once_for_every_kernel_and_for_its_copy(run: Run) -> None:
    *waiting, last = run("exponential-2d")
    what = ("forward and backward", "inverse in eval mode")
    assert waiting == [f"exponential-2d, torch.float32: {w}: {READ}" for w in what]
    assert int(last.split()[0]) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [(), ("--half",)], ids=["float32", "float16"])
def test_no_step_of_any_other_layer_waits(run: Run, dtype: tuple[str, ...]) -> None:
    lines = run(*dtype)
    assert operations([line for line in lines if not _counts_terms(line)]) > 50_000


def _counts_terms(line: str) -> bool:
    """Tell whether an operation is the one that an exponential waits with.

    A kernel that a layer makes anew at every call, in float32 or of ``max_gain``, is counted then.
    """
    name, what, operation = line.split(": ") if READ in line else ("", "", "")
    once = what in ("forward and backward", "inverse in eval mode")
    anew = "float16" in name or "bounded" in name
    again = what == "inverse in eval mode again"
    return "exponential" in name and operation == READ and (once or anew) and not again


def test_a_planted_look_is_caught(run: Run) -> None:
    found = run("plain", "--plant")
    assert f"plain, torch.float32: forward and backward: {READ}" in found


def test_what_waits_is_known() -> None:
    """Operators that PyTorch's sync debug mode warns of on a device."""
    from tests.launches.waits import waits

    aten, x = torch.ops.aten, torch.ones(2, device="meta")
    known = [
        (aten._local_scalar_dense.default, (x,), {}),
        (aten.item.default, (x,), {}),
        (aten.nonzero.default, (x,), {}),
        (aten.masked_select.default, (x, x > 0), {}),
        (aten._unique2.default, (x,), {}),
        (aten.equal.default, (x, x), {}),
        (aten._linalg_check_errors.default, (x, "inv"), {}),
        (aten.linalg_inv_ex.default, (x,), {"check_errors": True}),
        (aten.index.Tensor, (x, [x > 0]), {}),
        (aten.copy_.default, (x, torch.ones(2)), {}),
        (aten._to_copy.default, (x,), {"device": torch.device("cpu")}),
    ]
    for func, args, kwargs in known:
        assert waits(func, args, kwargs), func
    for func, args, kwargs in [
        (aten.add.Tensor, (x, x), {}),
        (aten.linalg_inv_ex.default, (x,), {}),
        (aten.index.Tensor, (x, [x.long()]), {}),
        (aten.copy_.default, (x, x), {}),
        (aten._to_copy.default, (x,), {"dtype": torch.float64}),
    ]:
        assert not waits(func, args, kwargs), func


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")
@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_on_a_gpu_no_step_waits(name: str) -> None:
    """PyTorch itself raises as soon as anything waits. Not yet run on one."""
    from tests.launches.waits import steps

    kind, arguments, settings, grid = TORCH_LAYERS[name]
    layer: Any = getattr(invconv_torch, kind)(*arguments, **settings, device="cuda")
    x = torch.randn(2, arguments[0], *grid, device="cuda", requires_grad=True)
    for _, step in steps(layer, x):
        step()  # compiles, and copies constants
    layer.train()
    torch.cuda.synchronize()
    for what, step in steps(layer, x):
        if name.startswith("exponential") and what == "inverse in eval mode":
            step()  # counts terms
            continue
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        except RuntimeError as error:
            raise AssertionError(what) from error
        finally:
            torch.cuda.set_sync_debug_mode("default")
