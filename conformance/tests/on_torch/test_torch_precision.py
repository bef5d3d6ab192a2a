"""TF32 and its like never decide a result, and the user's switches are as they were."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from invconv_torch import precision
from invconv_torch.precision import full_precision

PRODUCTS = ("mm", "bmm", "matmul", "__matmul__", "convolution_backward", "mv", "dot", "einsum")


def switches() -> dict[str, str]:
    cpu = torch.backends.mkldnn
    kinds = {"matmul": cpu.matmul, "conv": cpu.conv, "all": cpu}
    return {kind: switch.fp32_precision for kind, switch in kinds.items()}


@pytest.fixture
def reduced() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.mkldnn.conv.fp32_precision = "none"
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = "none"


class Watch(TorchFunctionMode):  # type: ignore[misc]
    """Records products that are called while reduced precision is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.loose: list[str] = []
        self.products = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").removesuffix(".default")
        if name in PRODUCTS or name.startswith("conv"):
            self.products += 1
            which = "conv" if name.startswith("conv") else "matmul"
            if switches()[which] not in ("ieee", "none"):
                self.loose.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", [True, False], ids=["compiled", "PyTorch's own"])
@pytest.mark.usefixtures("reduced")
def test_no_product_runs_in_reduced_precision(
    layer_name: str, torch_layer: Any, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr("invconv_torch.native.kernels.reason", lambda itemsize: "told so")
    layer, x = torch_layer(layer_name, dtype=torch.float32)
    before = switches()
    x.requires_grad_()
    with Watch() as watch:
        for method in ("forward", "inverse"):
            y, log_det = getattr(layer, method)(x)
            ((y**2).sum() + log_det.sum()).backward()
    assert watch.loose == []
    assert watch.products or layer_name == "actnorm" or kernel
    assert switches() == before
    with torch.autocast("cpu"):  # an operator has no layer that leaves it
        torch.testing.assert_close(layer.operator().inverse(x), layer.inverse(x)[0])
    with Watch() as watch:  # it does see one
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert watch.loose == ["matmul"]


@pytest.mark.parametrize(("device", "to"), [("cpu", "bf16"), ("cpu", "tf32"), ("cuda", "tf32")])
@pytest.mark.parametrize("product", ["matmul", "conv"])
def test_a_switch_of_one_kind_of_product_alone_is_seen(product: str, device: str, to: str) -> None:
    products = {"matmul": torch.backends.cuda, "conv": torch.backends.cudnn}
    switch = getattr(torch.backends.mkldnn if device == "cpu" else products[product], product)
    with FakeTensorMode():
        x = torch.zeros(1, device=device)
    before = switch.fp32_precision
    try:
        switch.fp32_precision = to
        with suppress(ZeroDivisionError), full_precision(x):
            assert switch.fp32_precision == "ieee"
            raise ZeroDivisionError
        assert switch.fp32_precision == to
    finally:
        switch.fp32_precision = before
    x = torch.zeros(1)
    assert full_precision(x) is full_precision(x)  # the next call has nothing to change


def test_a_switch_follows_the_one_above_afterwards_too() -> None:
    above = torch.backends.mkldnn
    try:
        above.fp32_precision = "bf16"
        with full_precision(torch.zeros(1)):
            assert switches()["conv"] == "ieee"
        above.fp32_precision = "ieee"
        assert set(switches().values()) == {"ieee"}
    finally:
        above.fp32_precision = "none"


@pytest.mark.usefixtures("reduced")
def test_switches_are_restored_after_the_last_thread() -> None:
    x, before = torch.zeros(2), switches()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with full_precision(x):
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor() as pool:
        pool.submit(hold)
        inside.wait(10)
        with full_precision(x):
            pass
        assert switches()["matmul"] == "ieee"  # the other one still computes
        leave.set()
    assert switches() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_parent_and_child_of_fork_find_the_switches_free() -> None:
    held = threading.Event()

    def hold() -> None:
        with precision._lock:
            held.set()
            time.sleep(0.2)

    def take() -> bool:
        taken = precision._lock.acquire(timeout=5)
        if taken:
            precision._lock.release()
        return taken

    def is_free() -> bool:  # for this thread, and for one that may be called as that of the parent
        with ThreadPoolExecutor() as pool:
            return take() and pool.submit(take).result()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if not child:
        os._exit(0 if is_free() else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_free()
