"""JAX's launches: programs lowered for CUDA, and the same ones run by XLA on a CPU's memory."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv.kernels.cuda import launch
from invconv_jax.native import wavefront
from tests.launches.stand_in_driver import Driver
from tests.programs import python
from tests.selected import slow

CALL = re.compile(r"custom_call @invconv_cuda_(\w+?)_[0-9a-f]+\(.* : \((.*?)\) -> ")


@pytest.fixture
def devices(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Let JAX have the two devices of the stand-in, on which nothing is run."""
    driver.runs = False
    monkeypatch.setattr(wavefront, "_ordinals", lambda: (0, 1))
    return driver


def lowered(function: Any, *arrays: Any) -> str:
    jax.clear_caches()  # JAX keeps what it lowered before
    found = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",))
    return str(found.as_text())


def convolution() -> ic.AutoregressiveConv:
    rng, like = np.random.default_rng(0), jnp.zeros((), "float32")
    return ic.AutoregressiveConv.init(3, direction=(1, -1), rng=rng, like=like)


def inverse(conv: Any, y: Any) -> Any:
    return conv.inverse(y)


Y = jax.ShapeDtypeStruct((2, 3, 5, 7), np.float32)


def test_what_is_lowered_for_cuda(devices: Driver) -> None:
    text = lowered(inverse, convolution(), Y)
    assert list(dict(CALL.findall(text))) == ["weigh", "solve"]
    stencil = convolution()._causal().sweep.on((5, 7))
    programs: list[Any] = [launch.program_of(3, stencil, 4, ordinal) for ordinal in (0, 1)]
    handles = [str(handle) for program in programs for handle in program.kernels.values()]
    assert handles
    assert not any(handle in text for handle in handles)
    assert not devices.launches


def test_weights_of_a_cpu_are_not_given_to_a_device(devices: Driver) -> None:
    prepared = convolution().prepare((5, 7))
    assert prepared.plan.method == "compiled kernel"
    given = dict(CALL.findall(lowered(prepared.inverse, Y)))
    assert given["weigh"] == "tensor<4x3x3xf32>"  # the matrices of the taps


def by_scan(text: str) -> bool:
    return "invconv_cuda" not in text and "stablehlo.while" in text


def test_wavefronts_solve_where_no_launch_can(devices: Driver, monkeypatch: Any) -> None:
    conv = convolution()
    exported = jax.export.export(jax.jit(inverse), platforms=["cuda"])(conv, Y)
    assert by_scan(exported.mlir_module())
    wide = jax.ShapeDtypeStruct((1, 3, 2, 20_000), np.float32)  # a row that does not fit
    raster = ic.AutoregressiveConv.init(3, mask="raster", rng=np.random.default_rng(0))
    assert by_scan(lowered(inverse, raster.asarrays(conv.kernel), wide))
    monkeypatch.setattr(wavefront, "_ordinals", lambda: ())
    assert by_scan(lowered(inverse, conv, Y))
    monkeypatch.undo()
    assert by_scan(lowered(inverse, conv, Y))  # JAX on a CPU


BEFORE = """\
import sys
from pathlib import Path
import jax, numpy as np
from jax import numpy as jnp
from tests.launches.jax_as_cuda import install
from tests.launches.stand_in_driver import STREAM
import invconv as ic
jax.config.update("jax_enable_x64", True)
driver = install(Path(sys.argv[1]))
rng = np.random.default_rng(0)
host = ic.AutoregressiveConv.init(3, direction=(1, -1), rng=rng)
values = rng.standard_normal((4, 3, 5, 7))
y, conv = jnp.asarray(values), host.asarrays(jnp.zeros(()))
inverse = jax.jit(lambda conv, y: conv.inverse(y))
"""

VALUES = """\
np.testing.assert_array_equal(inverse(conv, y), host.inverse(values))
assert [launch.kernel for launch in driver.launches] == ["fold", "decide", "solve"]
assert {(n.device, n.stream) for n in driver.launches} == {(1, STREAM)}
tall = rng.standard_normal((1, 3, 40, 6))
for _ in range(2):  # whose counters are zero again
    np.testing.assert_array_equal(inverse(conv, jnp.asarray(tall)), host.inverse(tall))
    solve = driver.launches[-1]
    assert solve.grid["bands"] > 1 and solve.pointers["counters"]
assert driver.library.stand_in_contexts() == 0  # in XLA's threads, too
"""


CHECKS = "from tests.launches import checks\nchecks.of_jax(checks.SMALL)\n"


@pytest.mark.parametrize("code", [VALUES, slow(CHECKS)])
def test_xla_launches_what_solves(code: str, compiled_kernels: Path) -> None:
    """In a process in which JAX's CPU devices are CUDA's."""
    flags = "--xla_force_host_platform_device_count=2"
    python("-c", BEFORE + code, compiled_kernels, JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
