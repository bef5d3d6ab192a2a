"""Who is warned of an inverse that cannot be right, where, and how often."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
from tests.stability.test_condition import authors_conv, between_rotations


def test_no_check_for_values_that_cannot_be_read() -> None:
    import array_api_strict as strict

    like = strict.zeros((), dtype=strict.float64, device=strict.Device("device1"))
    conv: Any = authors_conv("float64").asarrays(like)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conv.prepare((32, 32))


def test_the_condition_is_not_looked_at_inside_jit() -> None:
    kernel = jnp.asarray([[[1.0, -30.0]]])
    jax.jit(ic.AutoregressiveConv(kernel).inverse)(jnp.ones((1, 1, 64)))
    with pytest.warns(ic.IllConditionedWarning):
        ic.AutoregressiveConv(kernel).inverse(jnp.ones((1, 1, 64)))


def test_the_warning_points_to_the_callers_line() -> None:
    conv = authors_conv("float64")
    x = np.ones((1, 1, 32, 32))
    chain = ic.Chain([conv])
    for attempt in (
        lambda: conv.inverse_and_log_det(x),
        lambda: ic.Inverse(conv).forward(x),
        lambda: ic.Chain([ic.Inverse(conv)]).forward(x),
        lambda: ic.Inverse(ic.Inverse(conv)).inverse(x),
        lambda: chain.inverse(x),
    ):
        with pytest.warns(ic.IllConditionedWarning) as caught:
            attempt()
        assert caught[0].filename == __file__


def shrinking() -> ic.Conv1x1:
    return ic.Conv1x1(between_rotations([1.0, 1e-7]).astype(np.float32))


def test_who_does_not_look_does_not_look_at_inverses_inside_either() -> None:
    one = np.ones((1, 2, 2, 2), np.float32)
    chain = ic.Chain([ic.Inverse(shrinking()), ic.ActNorm.init(2, like=one)])
    with pytest.warns(ic.IllConditionedWarning):
        chain.inverse_vjp(one, one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chain.inverse_vjp(one, one, check=False)
        chain.prepare((2, 2), check=False).inverse(one)
    for call in (
        chain.forward,
        ic.Inverse(shrinking()).forward,
        ic.Inverse(chain.steps[0]).inverse,
    ):
        with pytest.warns(ic.IllConditionedWarning, match="the inverse of (Conv1x1|Inverse) on"):
            call(one)
