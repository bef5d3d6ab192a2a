"""What each flow library asks of its parts, asked of a drop-in by that library's own means.

Three rules hold in every library, in its own words: both ways undo each other and have opposite
log-determinants, which are those of the Jacobian that automatic differentiation gives; the density
of data is that of the latent variables times its determinant. `peers.own` has their classes
and test helpers, called from the installed package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from tests.interop.peers.flow import Flow

EVENT = (2, 3)
_RNG = np.random.default_rng
OPERATORS: dict[str, Callable[[], ic.InvertibleConv]] = {
    "emerging": lambda: ic.EmergingConv.init(2, ndim=1, rng=_RNG(0)),
    "periodic": lambda: ic.PeriodicConv.init(2, ndim=1, rng=_RNG(1)).replace(bias=np.ones(2)),
    "symmetric": lambda: ic.SymmetricConv.init(2, ndim=1, rng=_RNG(5)).replace(bias=np.ones(2)),
    "exponential": lambda: ic.ExponentialConv.init(2, ndim=1, rng=_RNG(6)),
    "QR": lambda: ic.QRConv1x1.init(2, ndim=1, rng=_RNG(2)),
    "chain": lambda: ic.Chain(
        [
            ic.ActNorm(np.asarray([0.5, -0.3]), np.ones(2), ndim=1),
            ic.PLUConv1x1.init(2, ndim=1, rng=_RNG(3)),
            ic.AutoregressiveConv.init(2, 2, 1, rng=_RNG(4)),
        ]
    ),
}


@dataclass(frozen=True)
class Subject:
    """A flow of one operator, with the arrays of its library.

    Attributes
    ----------
    flow : Flow
    normal : callable
        Of a batch shape: N(0, 1), shape (*batch, *EVENT).
    jacobian : callable
        The library's: of a function of an array, at one.
    batch : tuple of int
        The batch axes that every library's flow takes.
    """

    flow: Flow
    normal: Callable[[tuple[int, ...]], Any]
    jacobian: Callable[[Callable[[Any], Any], Any], Any]
    batch: tuple[int, ...]


Check = Callable[[Subject], None]


def close(found: Any, expected: Any, atol: float = 1e-8) -> None:
    """Raise AssertionError unless arrays of any library are the same to rounding."""
    one, other = (np.asarray(a.detach() if hasattr(a, "detach") else a) for a in (found, expected))
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=atol)


def both_ways_undo_each_other(s: Subject) -> None:
    """Check values, and that the log-determinants are opposite, one a sample."""
    z = s.normal(s.batch)
    x, there = s.flow.to_data(z)
    again, back = s.flow.to_latent(x)
    close(again, z)
    close(there, -back)
    assert tuple(there.shape) == s.batch


def the_log_determinant_is_that_of_the_jacobian(s: Subject) -> None:
    """Check against the dense Jacobian of the drop-in, by automatic differentiation."""
    one = tuple(1 for _ in s.batch)
    z = s.normal(one)
    size = math.prod(EVENT)
    dense = s.jacobian(lambda z: s.flow.to_data(z)[0].reshape(size), z)
    matrix = np.asarray(dense).reshape(size, size)
    close(s.flow.to_data(z)[1].reshape(1), np.linalg.slogdet(matrix)[1][None])


def the_density_is_that_of_the_latent_variables(s: Subject) -> None:
    """Check log p(x) = log N(z) + log|det dz/dx| of the library's distribution."""
    x = s.normal(s.batch)
    z, log_det = s.flow.to_latent(x)
    axes = tuple(range(len(s.batch), z.ndim))
    normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(axes)
    close(s.flow.log_prob(x), normal + log_det)


COMMON: tuple[Check, ...] = (
    both_ways_undo_each_other,
    the_log_determinant_is_that_of_the_jacobian,
    the_density_is_that_of_the_latent_variables,
)
