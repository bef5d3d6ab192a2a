"""JAX on a CPU calls the compiled kernel: memory, processes, exports; its bits are a law."""

from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from jax import numpy as jnp
from jax.experimental.compilation_cache import compilation_cache as cache

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv.kernels.cpu import machine
from invconv.kernels.cpu import xla as cpu
from invconv_conformance.cases.table import Case
from invconv_conformance.libraries import settings
from tests.programs import python
from tests.selected import cases_named

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
SCANNED = "corner-1d-", "raster-k2x3-dilated"


@jax.jit  # type: ignore[untyped-decorator]
def inverse(conv: Any, y: Any) -> Any:
    return conv.inverse(y)


@pytest.mark.parametrize("shape", [(16, 48, 64, 64), (1, 12, 512, 512), (170, 12, 32, 32)], ids=str)
def test_a_large_solve_needs_a_third_of_its_input_beside_the_result(shape: tuple[int, ...]) -> None:
    like = jnp.zeros((), np.float32)
    conv = ic.AutoregressiveConv.init(shape[1], rng=RNG, like=like)
    y = jax.ShapeDtypeStruct(shape, np.float32)
    compiled = jax.jit(conv.prepare(shape[2:], check=False).inverse).lower(y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 0.3 * 4 * np.prod(shape)


@pytest.mark.slow
def test_programs_on_a_disk_find_the_handler_in_another_process(tmp_path: Path) -> None:
    """Its address, which differs, is not in the program; what is cut short is compiled."""
    program = (
        "import jax, numpy as np, invconv as ic, invconv_jax\n"
        "conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))\n"
        "y = np.ones((2, 3, 4, 5)); jax.config.update('jax_enable_x64', True)\n"
        "found = jax.jit(lambda c, y: c.inverse(y))(conv.asarrays(jax.numpy.zeros(())), y)\n"
        "assert np.array_equal(found, conv.inverse(y))\n"
    )
    shared: dict[str, Any] = {**settings(1, str(tmp_path))}
    kept = []
    for _ in range(3):
        assert not python("-c", program, **shared).stderr
        kept.append({p.name for p in tmp_path.iterdir() if not p.name.endswith("-atime")})
        if len(kept) == 2:
            _cut_short(tmp_path)
    assert kept[0] == kept[1] == kept[2] != set()


def test_a_program_of_which_half_is_on_a_disk_is_compiled_again(tmp_path: Path) -> None:
    """As where one worker reads what another is writing: JAX warns, which our settings let pass."""
    least = {"min_compile_time_secs": 0, "min_entry_size_bytes": -1}
    names: dict[str, Any] = {"jax_compilation_cache_dir": str(tmp_path)}
    names |= {f"jax_persistent_cache_{name}": value for name, value in least.items()}
    before = {name: getattr(jax.config, name) for name in names}
    try:
        _keep_programs(names)
        for _ in range(2):
            assert jax.jit(lambda x: 3 * x + 1)(2.0) == 7
            _cut_short(tmp_path)
    finally:
        _keep_programs(before)


def _cut_short(folder: Path) -> None:
    found = list(folder.glob("*-cache"))
    assert found
    for path in found:
        path.write_bytes(path.read_bytes()[:-20])


def _keep_programs(names: dict[str, Any]) -> None:
    for name, value in names.items():
        jax.config.update(name, value)
    cache.reset_cache()


def test_a_handler_that_two_threads_compiled_is_registered_once(monkeypatch: Any) -> None:
    """XLA refuses a second handler of a name at another address."""
    for module, name in ((cpu, "call"), (cpu, "_handler"), (machine, "compiled")):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)  # keeps nothing
    host = ic.AutoregressiveConv.init(2, rng=RNG, like=np.zeros((), np.float32))
    for batch in (1, 2):
        y = np.ones((batch, 2, 3, 7), np.float32)
        np.testing.assert_array_equal(inverse(host.asarrays(jnp.asarray(y)), y), host.inverse(y))


def test_numbers_near_zero_are_kept_as_in_numpy() -> None:
    """XLA has the processor take them for zero."""
    host = ic.AutoregressiveConv.init(2, rng=RNG, like=np.zeros((), np.float32))
    y = np.zeros((1, 2, 40, 40), np.float32)
    y[:, :, 0, 0] = 1e-36
    wanted = host.inverse(y)
    tiny = np.finfo(np.float32).tiny
    assert ((np.abs(wanted) < tiny) & (wanted != 0)).any()
    np.testing.assert_array_equal(inverse(host.asarrays(jnp.asarray(y)), y), wanted)
    flushed = jax.jit(lambda x: x * 1.0)(jnp.full(3, tiny / 2, np.float32) * 1.5)
    assert not flushed.any(), "XLA does not flush any more: the kernel need not set the processor"


def test_an_exported_program_needs_nothing_of_ours() -> None:
    host, y = ic.AutoregressiveConv.init(3, rng=RNG), RNG.standard_normal((2, 3, 4, 5))
    conv = host.asarrays(jnp.asarray(y))
    assert "@invconv" in inverse.lower(conv, y).as_text()
    for platforms in (["cpu"], ["cpu", "cuda"]):
        for function in (inverse, jax.jit(jax.vmap(inverse, (None, 0)))):
            given = y if function is inverse else y[None]
            exported = jax.export.export(function, platforms=platforms)(conv, given)
            assert "@invconv" not in exported.mlir_module()
            found = exported.call(conv, jnp.asarray(given)).reshape(y.shape)
            np.testing.assert_allclose(found, host.inverse(y), rtol=1e-12, atol=1e-12)
    run, arrays = jax.jit(ic.lfilter), tuple(map(jnp.asarray, ([1.0, 0.5], [1.0, -0.5], y)))
    assert "@invconv_filter" in run.lower(*arrays).as_text()
    assert "@invconv" not in jax.export.export(run)(*arrays).mlir_module()


@pytest.mark.parametrize("case", cases_named(*SCANNED), ids=lambda case: case.name)
def test_without_llvmlite_the_scan_runs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    host, (y, bar) = case.conv(), case.images(2)
    wanted, (_, wanted_bar) = host.inverse(y), host.inverse_vjp(y, bar)
    monkeypatch.setattr(machine, "reason", lambda *_: "a test says so")
    conv = host.asarrays(jnp.asarray(y))
    prepared = conv.prepare(case.spatial_shape, check=False)
    assert prepared.plan.method == "wavefront"
    run = jax.jit(lambda conv, y: conv.inverse(y))
    assert "@invconv" not in run.lower(conv, y).as_text()
    (y_bar,) = jax.vjp(prepared.inverse, jnp.asarray(y))[1](bar)
    for found, right in ((run(conv, y), wanted), (y_bar, wanted_bar)):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-13 * np.abs(right).max())


@pytest.mark.parametrize("batch", [1, 16])
def test_prepared_weights_have_the_layout_of_the_lanes(batch: int) -> None:
    """Of 48 channels both layouts have the same size; a vmap computes weights of its own."""
    rng = np.random.default_rng(0)
    conv, y = ic.AutoregressiveConv.init(48, rng=rng), rng.standard_normal((batch, 48, 3, 4))
    prepared = conv.asarrays(jnp.zeros(())).prepare((3, 4), check=False)
    found = jax.jit(lambda p, y: p.inverse(y))(prepared, y)
    assert np.array_equal(found, conv.inverse(y))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), prepared)
    assert np.array_equal(jax.vmap(lambda p: p.inverse(jnp.asarray(y)))(two)[1], found)


def test_plans_say_how_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = ic.AutoregressiveConv.init(2, 2, rng=RNG, like=jnp.zeros((), np.float32))
    plans: list[ic.Plan] = []

    def planned(conv: Any) -> None:
        plans.append(conv.prepare((3, 4), check=False).plan)

    planned(conv)
    jax.jit(planned)(conv)
    monkeypatch.setattr(machine, "reason", lambda _: "no compiler")
    planned(conv.replace())
    corner = "cached inverse where accurate, else triangular solve"
    anywhere = "compiled kernel on a CPU, kernel or wavefront on CUDA, wavefront elsewhere"
    assert plans == [
        ic.Plan("compiled kernel", corner),
        ic.Plan(anywhere, corner),
        ic.Plan("wavefront", corner, levels=6),
    ]
