"""Run every operator on a batch spread over eight devices; `test_jax_devices` starts it.

It is a program of its own, since the number of virtual CPU devices is set before JAX starts.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

COLLECTIVES = r"\b(all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce)(?:-start)?\("


def operators() -> Iterator[Any]:
    """Yield chains that have every operator, of NumPy arrays."""
    import numpy as np

    import invconv as ic
    import invconv_jax  # noqa: F401 - makes operators pytrees
    from invconv.operators.base.register import own_operators
    from invconv_conformance.cases.case import perturbed

    rng = np.random.default_rng(0)
    classes: list[Any] = [cls for cls in own_operators() if hasattr(cls, "init")]
    yield ic.Chain([perturbed(cls.init(4, rng=rng), rng, 0.05) for cls in classes])
    raster = ic.AutoregressiveConv.init(4, rng=rng, mask="raster", dilation=2)
    closed = ic.ExponentialConv.init(4, rng=rng, padding="circular")
    yield ic.Chain([raster, ic.Inverse(ic.PeriodicConv.init(4, rng=rng)), closed])


def functions() -> dict[str, Any]:
    """Return functions of an operator and images, by name."""
    import jax

    def values(conv: Any, x: Any) -> Any:
        return conv.forward_and_log_det(x), conv.inverse_and_log_det(x)

    def loss(conv: Any, x: Any) -> Any:
        (y, log_det), (z, inverse_log_det) = values(conv, x)
        return (y * y + z * z).sum() - log_det.sum() - 2 * inverse_log_det.sum()

    return {
        "values": values,
        "gradients": jax.grad(loss, argnums=(0, 1), allow_int=True),
    }


def check(name: str, function: Any, conv: Any, x: Any, sharded: Any) -> None:
    """Assert that a function of sharded images gathers nothing and gives the same results."""
    import jax
    import numpy as np

    compiled = jax.jit(function).lower(conv, sharded).compile()
    found = Counter(re.findall(COLLECTIVES, compiled.as_text()))
    if name == "gradients":
        found.pop("all-reduce", None)  # a parameter's gradient is a sum over the batch
    assert not found, f"{type(conv).__name__}, {name}: {dict(found)}"
    assert 'custom_call_target="invconv_' in compiled.as_text()
    got, expected = compiled(conv, sharded), jax.jit(function)(conv, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if a.shape == x.shape:
            assert a.addressable_shards[0].data.shape[0] == x.shape[0] // 8
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-9)


def main() -> None:
    """Check all operators, and that a gather would be seen."""
    import jax
    import numpy as np
    from jax import numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    jax.config.update("jax_enable_x64", True)
    explicit = sys.argv[1:] == ["explicit"]
    if explicit:
        kind = (jax.sharding.AxisType.Explicit,)
        mesh = jax.make_mesh((8,), ("batch",), axis_types=kind)
        jax.set_mesh(mesh)
    else:
        mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((16, 4, 5, 6)))
    sharded = jax.device_put(x, sharding)
    for host in list(operators())[: 1 if explicit else None]:
        conv = host.asarrays(x)
        for name, function in functions().items():
            if explicit and name == "values":
                continue  # part of the other program
            check(name, function, conv, x, sharded)
    if not explicit:
        gather = jax.jit(lambda x: jnp.fft.rfft2(x)).lower(sharded).compile().as_text()
        assert re.search(COLLECTIVES, gather), "the check saw no gather where there is one"
    print("no gather")


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    os.environ["JAX_PLATFORMS"] = "cpu"
    main()
