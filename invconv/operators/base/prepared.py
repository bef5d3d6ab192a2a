"""An operator factored for one grid: factor once, solve often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from invconv.arrays.namespaces import Array, Shape
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import Call, Fitting, enter

if TYPE_CHECKING:
    from invconv.operators.base.operator import InvertibleConv

Map = Callable[[Array], Array]


class Planned(Protocol):
    """What runs a solve."""

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan that asks others for theirs each time: what is unpickled may run in another way.

    Attributes
    ----------
    own : dict
        What there is to say besides.
    of : Planned or None
        Whose plan it adds to.
    steps : tuple of Planned
        Whose plans are listed as "steps".
    """

    own: dict[str, Any]
    of: Planned | None = None
    steps: tuple[Planned, ...] = ()

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        plan = (self.of.plan if self.of else {}) | self.own
        return plan | {"steps": [step.plan for step in self.steps]} if self.steps else plan


@dataclass(frozen=True, eq=False)
class Factor:
    """An operator factored for one grid.

    Attributes
    ----------
    solve : callable
        (B, C, *spatial) to the same; undoes the map that was factored.
    log_det : 0-d array
        log|det| of that map, not of the solve.
    runs : Planned
        Knows how the solve runs.
    """

    solve: Map
    log_det: Array
    runs: Planned


@dataclass(frozen=True, eq=False)
class WithoutBias:
    """x = solve(y - b)."""

    solve: Map
    bias: Array

    def __call__(self, y: Array) -> Array:
        """Solve for x."""
        return self.solve(y - per_channel(self.bias, y))


@dataclass(frozen=True, eq=False, repr=False)
class PreparedInverse:
    """What `InvertibleConv.prepare` returns. It holds the values the operator had then.

    JAX's arrays, which nobody can edit, are not copied for it: do not donate them.

    Attributes
    ----------
    conv : InvertibleConv
    spatial_shape : tuple of int
        The grid it was factored for.
    """

    conv: InvertibleConv
    spatial_shape: Shape
    _factor: Factor
    _fitting: Fitting | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fitting", Fitting.of(self.conv, self.spatial_shape))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs: the method, and what it chose."""
        return self._factor.runs.plan

    def __repr__(self) -> str:
        """Say the plan instead of the factors."""
        return f"PreparedInverse({self.conv!r}, {self.spatial_shape}, plan={self.plan})"

    def inverse(self, y: Array) -> Array:
        """Return x with conv.forward(x) = y, shape (*batch, C, *spatial)."""
        if self._fitting and self._fitting(y):
            return self._factor.solve(y)
        call = self._enter(y)
        return call.leave(self._factor.solve(call.x))

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return `inverse` and log|det K^-1|, the latter broadcast to the batch shape."""
        call = self._enter(y)
        return call.leave(self._factor.solve(call.x)), call.broadcast(-self._factor.log_det)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what names devices."""
        return {name: value for name, value in vars(self).items() if name != "_fitting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Name the devices that are here."""
        vars(self).update(state)
        self.__post_init__()

    def _enter(self, y: Array) -> Call:
        call = enter(self.conv, "y", y)
        if call.spatial_shape != self.spatial_shape:
            raise ValueError(
                f"y: expected the grid {self.spatial_shape} that this inverse was prepared for, "
                f"got {call.spatial_shape}; prepare another one for it"
            )
        return call
