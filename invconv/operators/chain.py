"""Operators made of operators: a sequence of them, and the inverse of one.

    K = K_n ... K_1,   log|det K| = sum of log|det K_i|,   K^-1 = K_1^-1 ... K_n^-1

`Composite` is the base of `Chain` and of `operators.emerging`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.validation import require_alike
from invconv.kernels.primitives import matmul, multiply, per_channel
from invconv.operators.base.conditions import in_one_norm
from invconv.operators.base.operator import InvertibleConv, require_operator
from invconv.operators.base.protocol import BOTH, Gradients, add_gradients
from invconv.solve.state import Map, State, Steps, one_after_another
from invconv.trust.bound import Bounds, largest_entry
from invconv.trust.condition import Condition
from invconv.trust.measured import Step, shift


def _one_after_another(maps: Sequence[tuple[Map, Map]]) -> tuple[Map, Map]:
    """Return the map of all steps and its inverse, from those of each."""

    def forward(x: Array) -> Array:
        for apply, _ in maps:
            x = apply(x)
        return x

    def backward(y: Array) -> Array:
        for _, solve in reversed(maps):
            y = solve(y)
        return y

    return forward, backward


@dataclass(frozen=True, eq=False, repr=False)
class Composite(InvertibleConv):
    """Several operators one after the other: log-determinants add up."""

    @abstractmethod
    def _parts(self) -> Mapping[str, InvertibleConv]: ...

    @derived
    def _steps(self) -> tuple[InvertibleConv, ...]:
        return tuple(self._parts().values())

    @derived
    def channels(self) -> int:
        """C, the number of channels."""
        return self._steps[0].channels

    def _apply_after(self, weight: Array, x: Array) -> Array:
        return self._apply(x, weight)

    def _prime(self) -> None:
        super()._prime()
        _ = self._inverts_forward, self._needs_y, self._saves_log_det

    @derived
    def _needs_y(self) -> bool:
        return self._steps[-1]._needs_y

    @derived
    def _inverts_forward(self) -> bool:
        return any(step._inverts_forward for step in self._steps)

    @derived
    def _pixelwise(self) -> bool:
        return all(step._pixelwise for step in self._steps)

    def _check_forward(self, shape: Shape, result: Array) -> None:
        for step in self._steps:
            step._check_forward(shape, result)

    def _apply(self, x: Array, weight: Array | None = None) -> Array:
        """Run the steps on W x; 1x1 steps without bias gather in W before it is applied."""
        for step in self._steps:
            if step._pointwise and getattr(step, "bias", None) is None:
                matrix = step._weights()
                weight = matrix if weight is None else matmul(matrix, weight)
            elif weight is None:
                x = step._forward(x)
            else:
                x = step._forward_after(weight, x)
                weight = None
        return x if weight is None else multiply(weight, x)

    def _factor(self, shape: Shape) -> State:
        return one_after_another(
            [step._factor(shape) for step in self._steps], getattr(self, "bias", None)
        )

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        return _one_after_another([step._linear_maps(shape) for step in self._steps])

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        maps = [step._transposed_maps(shape) for step in reversed(self._steps)]
        return _one_after_another(maps)

    def _trajectory(self, x: Array) -> list[Array]:
        """Return x and the output of every step."""
        points = [x]
        for step in self._steps:
            points.append(step._forward(points[-1]))
        return points

    def _forward_saving(self, x: Array) -> tuple[Array, Any]:
        memos = []
        for step in self._steps:
            x, memo = step._forward_saving(x)
            memos.append(memo)
        bias = getattr(self, "bias", None)
        return x if bias is None else x + per_channel(bias, x), memos

    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        gradients: Gradients = {}
        steps = list(zip(self._parts().items(), memo, strict=True))
        for i, ((prefix, step), kept) in reversed(list(enumerate(steps))):
            more, y_bar = step._forward_vjp(kept, y_bar, (wanted[0], wanted[1] or i > 0))
            add_gradients(gradients, prefix, more)
        return gradients, y_bar

    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        gradients: Gradients = {}
        points = [*self._trajectory(x)[:-1], y]
        for (prefix, step), start, end in zip(
            self._parts().items(), points[:-1], points[1:], strict=True
        ):
            more, x_bar = step._inverse_vjp(end, start, x_bar)
            add_gradients(gradients, prefix, more)
        return gradients, x_bar

    def _log_det(self, shape: Shape) -> Array:
        steps = self._steps
        total = steps[0]._log_det(shape)
        for step in steps[1:]:
            total = total + step._log_det(shape)
        return total

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        found: Gradients = {}
        for prefix, step in self._parts().items():
            add_gradients(found, prefix, step._log_det_vjp(shape, log_det_bar))
        return found

    @derived
    def _saves_log_det(self) -> bool:
        return all(step._saves_log_det for step in self._steps)

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        found = [step._log_det_saving(shape) for step in self._steps]
        total = found[0][0]
        for log_det, _ in found[1:]:
            total = total + log_det
        return total, [memo for _, memo in found]

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        found = dict(gradients)
        for (prefix, step), kept in zip(self._parts().items(), memo, strict=True):
            own = {}
            for name in step._parameter_names:
                if (full := f"{prefix}.{name}") in gradients:
                    own[name] = gradients[full]
            add_gradients(found, prefix, step._add_log_det_vjp(own, shape, log_det_bar, kept))
        return found

    def _condition(self, shape: Shape) -> Condition:
        return in_one_norm(self, shape)

    def _bounds(self, shape: Shape) -> list[Bounds]:
        found = [bounds for step in self._steps for bounds in step._bounds(shape)]
        if (bias := getattr(self, "bias", None)) is not None:
            found.append(Bounds(1.0, 1.0, 1, largest_entry(bias)))
        return found

    def _computation(
        self, shape: Shape, factored: bool = True, state: State | None = None
    ) -> list[Step]:
        solver = None if state is None else state.solver
        states = solver.states if isinstance(solver, Steps) else [None] * len(self._steps)
        found = [
            step.within(name)
            for (name, part), known in zip(self._parts().items(), states, strict=True)
            for step in part._computation(shape, factored, known)
        ]
        if (bias := getattr(self, "bias", None)) is not None:
            found.append(shift("bias", lambda x: per_channel(bias, x)))
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Composite):
    """One operator after another.

    Parameters
    ----------
    steps : sequence of InvertibleConv
        At least one; steps[0] runs first. Their arrays are named "0.weight", "1.kernel", ...

    Notes
    -----
    The number of spatial axes is that of the steps that have one; it overrides the None of a 1x1.
    1x1 steps without bias are multiplied first, with each other and with the kernel that follows:
    no product of them may leave the range of the dtype.
    The condition number is that of the whole map, which is not the product of the steps'. Where one
    step is singular and another is the inverse of a singular one, there is no such map: ``log_det``
    is NaN, ``forward`` and ``inverse`` raise SingularConvError.

    Examples
    --------
    The paper's flow step mixes channels before it convolves:

    >>> import numpy as np
    >>> from invconv import Chain, EmergingConv, QRConv1x1
    >>> rng = np.random.default_rng(0)
    >>> conv = Chain([QRConv1x1.init(4, rng=rng), EmergingConv.init(4, rng=rng)])
    >>> x = rng.standard_normal((2, 4, 8, 8))
    >>> bool(np.allclose(conv.inverse(conv.forward(x)), x))
    True
    """

    steps: Sequence[InvertibleConv]

    _part_names = ("steps",)

    def __post_init__(self) -> None:
        if isinstance(self.steps, InvertibleConv):
            raise TypeError("steps: expected a list of operators, got one operator; use [conv]")
        if not isinstance(self.steps, Iterable):
            raise TypeError(f"steps: expected a list of operators, got {self.steps!r}")
        steps = tuple(self.steps)
        if not steps:
            raise ValueError("steps: expected at least one operator, got none")
        for i, step in enumerate(steps):
            require_operator(f"steps[{i}]", step)
            require_same(f"steps[{i}]", step, "steps[0]", steps[0])
        object.__setattr__(self, "steps", steps)
        ndims = [step.ndim for step in steps]
        if len({*ndims} - {None}) > 1:
            raise ValueError(f"steps: expected one number of spatial axes, got {ndims}")

    @derived
    def ndim(self) -> int | None:
        """Return the number of spatial axes that the steps agree on."""
        # a step may be a chain: to ask twice would take twice as long at every level
        return next((n for step in self.steps if (n := step.ndim) is not None), None)

    def _parts(self) -> Mapping[str, InvertibleConv]:
        return {str(i): step for i, step in enumerate(self.steps)}

    def _rebuild(self, own: Mapping[str, Any], parts: Mapping[str, Any]) -> Self:
        return type(self)(tuple(parts.values()))

    def _with(self, own: Mapping[str, Any], parts: Sequence[Any] = ()) -> Self:
        return self._unchecked({"steps": tuple(parts) or self.steps})  # it has no other field

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def __iter__(self) -> Iterator[InvertibleConv]:
        """Iterate over the steps, that which runs first first."""
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> InvertibleConv: ...
    @overload
    def __getitem__(self, index: slice) -> Chain: ...
    def __getitem__(self, index: int | slice) -> InvertibleConv:
        """Return a step, or the chain of some of them."""
        if isinstance(index, slice):
            return Chain(tuple(self.steps)[index])
        return self.steps[index]

    def transpose(self) -> Chain:
        """Return the transposed steps in the opposite order, without biases."""
        return Chain(tuple(step.transpose() for step in reversed(self.steps)))


def require_same(name: str, conv: InvertibleConv, like_name: str, like: InvertibleConv) -> None:
    """Raise unless two operators agree in channels, library, dtype and device."""
    if conv.channels != like.channels:
        raise ValueError(
            f"{name}: expected {like.channels} channels as {like_name} has, got {conv.channels}"
        )
    array_name, array = conv._reference()
    require_alike(f"{name}.{array_name}", array, like_name, like._reference()[1])
