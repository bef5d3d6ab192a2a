"""Operators in pickles, and in the checkpoints of Flax (NNX, Linen, msgpack) and orbax."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

import invconv as ic
import invconv_jax
from invconv.operators.base.register import own_operators

jax.config.update("jax_enable_x64", True)

pytest.importorskip("flax")


EVERY: list[Any] = [cls for cls in own_operators() if hasattr(cls, "init")]
FEW: list[Any] = [ic.ActNorm, ic.PLUConv1x1, ic.EmergingConv]


def chain(seed: int, classes: list[Any] = FEW) -> ic.Chain:
    keys = jax.random.split(jax.random.key(seed), len(classes))
    return ic.Chain([invconv_jax.init(k, c, 2) for k, c in zip(keys, classes, strict=True)])


X = jax.random.normal(jax.random.key(9), (2, 2, 4, 5))


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(one, jax.Array)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda a: pickle.loads(pickle.dumps(a))])
def test_pickles_and_copies_of_pytrees(duplicate: Any) -> None:
    conv = chain(0, EVERY)
    reversible = invconv_jax.reversible(chain(0), (4, 5))
    for one in (conv, invconv_jax.channels_last(conv), reversible):
        assert_same(duplicate(one), one)
    wanted = reversible.forward_and_log_det(X)[0]
    np.testing.assert_array_equal(duplicate(reversible).forward_and_log_det(X)[0], wanted)


def test_flax_serialization_of_operators() -> None:
    from flax import serialization

    invconv_jax.register_with_flax()
    conv, other = chain(0, EVERY), chain(1, EVERY)
    data = serialization.to_bytes({"flow": conv, "step": 3})
    found = serialization.from_bytes({"flow": other, "step": 0}, data)
    assert found["step"] == 3
    assert_same(found["flow"], conv)
    with pytest.raises(ValueError, match=r"state: expected the arrays .*0\.bias"):
        serialization.from_bytes(chain(0)[0], serialization.to_bytes(conv))


def test_orbax_writes_and_reads_operators(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    conv = chain(0, EVERY)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "flow", conv)
        checkpointer.wait_until_finished()
        assert_same(checkpointer.restore(tmp_path / "flow", chain(1, EVERY)), conv)


def test_an_exported_program_takes_and_returns_operators() -> None:
    """Of serialized programs; the structure travels as class names and settings."""
    conv = chain(0, EVERY)

    def step(conv: Any, x: Any) -> Any:
        z, log_det = conv.forward_and_log_det(x)
        return jax.tree.map(lambda leaf: leaf, conv), z, log_det

    program = export.export(jax.jit(step))(conv, X).serialize()
    found, z, log_det = export.deserialize(bytearray(program)).call(conv, X)
    assert_same(found, conv)
    expected = jax.jit(step)(conv, X)[1:]
    np.testing.assert_allclose(z, expected[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(log_det, expected[1], rtol=1e-10)
