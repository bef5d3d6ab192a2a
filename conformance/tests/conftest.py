"""What several test files need: JAX in float64, PyTorch layers, a disk soon full, no COLUMNS."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import jax
import pytest
import torch

from tests.selected import slow

_FUZZING: dict[str, Any] = {
    "database": None,
    "deadline": 20_000,  # milliseconds, of what hangs
    "suppress_health_check": list(hypothesis.HealthCheck),
}
hypothesis.settings.register_profile("ours", max_examples=400, derandomize=True, **_FUZZING)
hypothesis.settings.register_profile("long", max_examples=100_000, **_FUZZING)
hypothesis.settings.load_profile("ours")  # unless --hypothesis-profile says another

jax.config.update("jax_enable_x64", True)
os.environ.pop("COLUMNS", None)  # tables are as wide as they need to be, whoever runs the tests

TURNED = {"direction": -1, "channel_order": "upper"}
TORCH_LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "autoregressive-1d": ("AutoregressiveConv1d", (2, 3), TURNED, (4,)),
    "autoregressive-2d": ("AutoregressiveConv2d", (2,), {"direction": (1, -1)}, (3, 4)),
    "autoregressive-3d": ("AutoregressiveConv3d", (2,), {"dilation": (1, 2, 1)}, (2, 3, 2)),
    "raster-2d": ("AutoregressiveConv2d", (2,), {"mask": "raster"}, (3, 4)),
    "emerging-1d": ("EmergingConv1d", (2,), {"mixing": "qr"}, (4,)),
    "emerging-2d": ("EmergingConv2d", (2,), {"mixing": "plain"}, (3, 3)),
    "emerging-3d": ("EmergingConv3d", (2,), {"bias": False}, (2, 2, 2)),
    "periodic-1d": ("PeriodicConv1d", (2, 2), {}, (4,)),
    "periodic-2d": ("PeriodicConv2d", (2, (3, 2)), {}, (3, 4)),
    "periodic-3d": ("PeriodicConv3d", (2, (1, 3, 1)), {}, (2, 3, 2)),
    "exponential-1d": ("ExponentialConv1d", (2,), {"padding": "circular"}, (4,)),
    "exponential-2d": ("ExponentialConv2d", (2,), {"dilation": (1, 2)}, (3, 4)),
    "exponential-3d": ("ExponentialConv3d", (2, (1, 3, 1)), {}, (2, 3, 2)),
    "symmetric-1d": ("SymmetricConv1d", (2, 5), {}, (4,)),
    "symmetric-2d": ("SymmetricConv2d", (2, (3, 1)), {}, (3, 4)),
    "bordered-2d": ("SymmetricConv2d", (2, 3), {"boundary": ("zero", "periodic")}, (3, 4)),
    "symmetric-3d": ("SymmetricConv3d", (2, (1, 3, 1)), {}, (2, 3, 2)),
    "plain": ("Conv1x1", (3,), {}, (2, 2)),
    "plu": ("Conv1x1", (3, "plu"), {}, (2, 2)),
    "qr": ("Conv1x1", (3, "qr"), {}, (2, 2)),
    "orthogonal": ("Conv1x1", (3, "orthogonal"), {}, (2, 2)),
    "circulant": ("Conv1x1", (3, "circulant"), {}, (2, 2)),
    "householder": ("Conv1x1", (3, "householder"), {}, (2, 2)),
    "actnorm": ("ActNorm", (3,), {}, (2, 2)),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have JAX, which compiles for seconds, run by default a test's first parameters alone."""
    seen = set[str]()
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        if params and (params.get("carry") is jax.numpy.asarray or params.get("library") == "jax"):
            function = item.nodeid.partition("[")[0]
            if function in seen:
                item.add_marker("slow")
            seen.add(function)


class Method(torch.nn.Module):  # type: ignore[misc]
    """A layer whose forward is one of its directions."""

    def __init__(self, layer: Any, direction: str) -> None:
        super().__init__()
        self.layer, self.direction = layer, direction

    def forward(self, x: Any) -> Any:
        return getattr(self.layer, self.direction)(x)


class Both(torch.nn.Module):  # type: ignore[misc]
    """Each layer's forward and inverse, on an image of its own."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, *images: Any) -> Any:
        return [
            result
            for layer, x in zip(self.layers, images, strict=True)
            for result in (*layer(x), *layer.inverse(x))
        ]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Have PyTorch draw the same for a test each time."""
    torch.manual_seed(0)


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test in an empty folder."""
    monkeypatch.chdir(tmp_path)


_NIGHTLY = {n for n in TORCH_LAYERS if n.endswith(("1d", "3d"))} - {
    "autoregressive-1d",
    "periodic-3d",
}


@pytest.fixture(params=[slow(n, id=n) if n in _NIGHTLY else n for n in TORCH_LAYERS])
def layer_name(request: pytest.FixtureRequest) -> str:
    """Return the name of each of `TORCH_LAYERS` in turn; by default mostly of two axes."""
    return str(request.param)


@pytest.fixture
def torch_layer() -> Callable[..., tuple[Any, Any]]:
    """Return a function of a name that makes a layer and two images for it."""
    import invconv_torch

    def build(name: str, grid_factor: int = 1, **options: Any) -> tuple[Any, Any]:
        kind, arguments, settings, grid = TORCH_LAYERS[name]
        torch.manual_seed(len(name))
        settings = {"dtype": torch.float64} | settings | options
        layer = getattr(invconv_torch, kind)(*arguments, **settings)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.1 * torch.randn(p.shape, dtype=torch.float64).to(p))
        grid = tuple(grid_factor * n for n in grid)
        images = torch.randn(2, arguments[0], *grid, dtype=torch.float64)
        return layer, images.to(settings["dtype"])

    return build


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of its own, of the size that is the parameter ("1m")."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not allowed to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Have XLA spend less on programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
