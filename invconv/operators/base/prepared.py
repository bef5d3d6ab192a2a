"""An operator factored for one grid: x = K^-1 (y - b), factor once, solve often."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from invconv.arrays.namespaces import Array, Shape, cast
from invconv.families.factored import State
from invconv.operators.base.calls import Call, as_batch, fits, for_each


@dataclass(frozen=True, repr=False)
class Plan:
    """How a prepared inverse solves. An attribute that does not apply to its method is None.

    Attributes
    ----------
    method : str
        "compiled kernel", "CUDA kernel", "wavefront", "spectral", "division", ...; "steps, last
        first" for several factors.
    at_the_pixel, per_frequency : str, optional
        How the C x C matrix at each pixel, or of each frequency, is undone.
    levels : int, optional
        The number of wavefronts, each of which needs those before it.
    frequencies : int, optional
        The number of matrices of a spectral solve.
    times, terms : int, optional
        The series of an exponential: how often it is applied, and its terms; None if they are
        counted as it runs.
    vectors : str, optional
        The vectors of the compiled kernel.
    precision : str, optional
        "float64" if data of another dtype are solved in it.
    steps : tuple of Plan
        The plans of several factors, in the order in which the forward map runs them.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import ActNorm
    >>> ActNorm(np.zeros(1), np.zeros(1)).prepare((4, 4)).plan
    Plan(method='division')
    """

    method: str
    at_the_pixel: str | None = None
    per_frequency: str | None = None
    levels: int | None = None
    frequencies: int | None = None
    times: int | None = None
    terms: int | None = None
    vectors: str | None = None
    precision: str | None = None
    steps: tuple[Plan, ...] = ()

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        """Return the plan of a solver, which names the attributes in words ("at the pixel")."""
        named = {name.replace(" ", "_"): value for name, value in values.items()}
        return cls(**named | {"steps": tuple(map(cls._of, values.get("steps", ())))})

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self)}
        return f"Plan({', '.join(f'{n}={v!r}' for n, v in shown.items() if v not in (None, ()))})"

    def __getitem__(self, name: str) -> Any:
        """Say what took the place of the dictionary of 0.2.0."""
        raise TypeError(f"a plan is no dict since 1.0: write plan.{str(name).replace(' ', '_')}")

    def __getattr__(self, name: str) -> Any:
        """Say likewise; Python asks here for names that are no fields."""
        raise AttributeError(f"a plan is no dict since 1.0, and has no {name}: write plan.method")


@dataclass(frozen=True, eq=False, repr=False)
class PreparedInverse:
    """An operator factored by `InvertibleConv.prepare`, with the values that it had then.

    JAX's arrays are immutable and not copied: do not donate them. With JAX's arrays it is a pytree,
    as its operator is, and can be an argument of ``jax.jit``.

    Attributes
    ----------
    conv : InvertibleConv
    spatial_shape : tuple of int
        The grid for which the operator was factored.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PeriodicConv
    >>> conv = PeriodicConv.init(3, rng=np.random.default_rng(0))
    >>> prepared = conv.prepare((8, 8))
    >>> x = np.ones((2, 3, 8, 8))
    >>> y = conv.forward(x)
    >>> np.allclose(prepared.inverse(y), x)
    True
    >>> np.allclose(prepared.inverse_and_log_det(y)[1], [-conv.log_det((8, 8))] * 2)
    True
    >>> np.allclose(prepared.least_squares(y, damp=1e-6), x)
    True
    """

    conv: Any  # an InvertibleConv: its module imports this one
    spatial_shape: Shape
    _state: State

    @property
    def plan(self) -> Plan:
        """How the solve runs: the method, and its choices."""
        return Plan._of(self._state.plan)

    def __repr__(self) -> str:
        return f"PreparedInverse({self.conv!r}, {self.spatial_shape}, plan={self.plan})"

    def inverse(self, y: Array, before: Array | None = None) -> Array:
        """Return x with conv.forward(x) = y, shape (*batch, C, *spatial).

        ``before``, of an `AutoregressiveConv` alone, are the pixels of x that precede this block:
        see `AutoregressiveConv.inverse`.
        """
        if before is None and fits(self.conv, y) and y.shape[2:] == self.spatial_shape:
            return self._state.solve(y)
        call = self._as_batch(y)
        y = call.x
        if before is not None:
            if not hasattr(call.conv, "_with_before"):
                raise TypeError(
                    "before: expected none, since only an AutoregressiveConv alone reads the "
                    f"pixels before a block, got some for {type(self.conv).__name__}"
                )
            conv = call.conv if self._state.dtype is None else call.conv._in_float64()
            y = conv._with_before(call, cast(y, self._state.dtype or y.dtype), before, -1)
        return call.restore_shape(self._state.solve(y))

    def least_squares(self, y: Array, damp: float | Array = 0.0) -> Array:
        """Return the x that minimises |K x + b - y|^2 + damp^2 |x|^2; as the operator's own.

        An operator that is exactly singular cannot be prepared: it has `least_squares` itself.

        Raises
        ------
        TypeError
            For an operator that has no `least_squares`.
        """
        self._as_batch(y)
        if not hasattr(self.conv, "least_squares"):
            raise TypeError(
                "least_squares: expected a periodic, symmetric or 1x1 convolution, or an ActNorm, "
                f"got {type(self.conv).__name__}"
            )
        dtype = self._state.dtype
        if dtype is None:
            return self.conv.least_squares(y, damp)
        damp = damp if isinstance(damp, int | float) else cast(damp, dtype)
        return cast(self.conv._in_float64().least_squares(cast(y, dtype), damp), y.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return `inverse` and log|det K^-1|, the latter broadcast to the batch shape."""
        if fits(self.conv, y) and y.shape[2:] == self.spatial_shape:
            return self._state.solve(y), for_each(y.shape[:1], -self._state.log_det)
        call = self._as_batch(y)
        x = call.restore_shape(self._state.solve(call.x))
        return x, call.broadcast(-self._state.log_det)

    def _as_batch(self, y: Array) -> Call:
        call = as_batch(self.conv, "y", y)
        if call.spatial_shape != self.spatial_shape:
            raise ValueError(
                f"y: expected the grid {self.spatial_shape} that this inverse was prepared for, "
                f"got {call.spatial_shape}; prepare another one for it"
            )
        return call
