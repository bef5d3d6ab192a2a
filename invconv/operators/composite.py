"""Operators made of operators, one after the other.

    K = K_n ... K_1,   log|det K| = sum of log|det K_i|,   K^-1 = K_1^-1 ... K_n^-1

1x1 steps without bias are matrices; they are multiplied before they are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape
from invconv.kernels import rules
from invconv.kernels.families import MatrixFamily
from invconv.kernels.primitives import matmul, multiply, per_channel, shifted
from invconv.operators.base.conditions import in_one_norm
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.protocol import BOTH, Gradients, add_gradients
from invconv.solve.state import Map, State, Steps, one_after_another
from invconv.trust.bound import Bounds, largest_entry
from invconv.trust.condition import Condition
from invconv.trust.measured import Step, shift


def _one_after_another(maps: Sequence[tuple[Map, Map]]) -> tuple[Map, Map]:
    """Return the map of all steps and its inverse, given both maps of each step."""

    def forward(x: Array) -> Array:
        for apply, _ in maps:
            x = apply(x)
        return x

    def backward(y: Array) -> Array:
        for _, solve in reversed(maps):
            y = solve(y)
        return y

    return forward, backward


def _gathers(step: InvertibleConv) -> bool:
    """Tell whether a step is one matrix, to be multiplied with its neighbours."""
    return step._pointwise and getattr(step, "bias", None) is None


def _product(matrix: Array, before: Array | None) -> Array:
    return matrix if before is None else matmul(matrix, before)


def _matrix_vjp(
    step: InvertibleConv, before: Array | None, memo: Any, bar: Array | None
) -> tuple[Gradients, Array | None]:
    """Pull back the cotangent of a step's matrix times ``before``, the product of earlier ones."""
    if bar is None:
        return {}, None
    matrix, parts = memo
    if before is None:
        return step._weights_vjp(bar, parts), None
    matrix_bar, before_bar = rules.matmul_vjp(matrix, before, bar, BOTH)
    return step._weights_vjp(matrix_bar, parts), before_bar


class Composite(InvertibleConv, abstract=True):
    """Several operators one after the other: log-determinants add up."""

    @property
    def _steps(self) -> tuple[InvertibleConv, ...]:
        return tuple(self._parts().values())

    def _apply_after(self, weight: Array, x: Array) -> Array:
        return self._apply(x, weight)

    def _prime(self) -> None:
        super()._prime()
        _ = self._inverts_forward, self._needs_y, self._keeps_y, self._saves_log_det

    @derived
    def _needs_y(self) -> bool:
        return self._steps[-1]._needs_y

    @derived
    def _keeps_y(self) -> bool:
        return self._steps[-1]._keeps_y

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
        """Run the steps on W x; 1x1 steps without bias are multiplied into W first."""
        for step in self._steps:
            if _gathers(step):
                weight = _product(step._weights(), weight)
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

    def _forward_saving(self, x: Array, weight: Array | None = None) -> tuple[Array, Any]:
        """Return forward(W x), and the memo of each step for its derivative; see `_apply`."""
        memos = []
        for step in self._steps:
            before = weight
            if _gathers(step):
                matrix, memo = step._weights_saving()
                weight, memo = _product(matrix, before), (matrix, memo)
            elif before is None:
                x, memo = step._forward_saving(x)
            else:
                x, memo = step._forward_after_saving(before, x)
                weight = None
            memos.append((before, memo))
        last = None if weight is None else (weight, x)
        x = x if weight is None else multiply(weight, x)
        bias = getattr(self, "bias", None)
        return x if bias is None else shifted(x, bias), (memos, last)

    def _forward_after_saving(self, weight: Array, x: Array) -> tuple[Array, Any]:
        return self._forward_saving(x, weight)

    def _forward_after_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array, Array]:
        gradients, w_bar, x_bar = self._pull_back(memo, y_bar, wanted)
        return self._with_bias_gradient(gradients, y_bar, 1), w_bar, x_bar

    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        gradients, _, x_bar = self._pull_back(memo, y_bar, wanted)
        return gradients, x_bar

    def _pull_back(
        self, memo: Any, bar: Array, wanted: tuple[bool, bool]
    ) -> tuple[Gradients, Array, Array]:
        """Return the gradients of <bar, K W x> by the parameters, by W and by x."""
        gradients: Gradients = {}
        w_bar = None
        memos, last = memo
        runs = [not _gathers(step) for step in self._steps]
        if last is not None:
            weight, x = last
            inner = wanted[0], wanted[1] or any(runs)
            w_bar, bar = rules.apply_vjp(MatrixFamily(), weight, x, bar, inner)
        steps = list(zip(self._parts().items(), memos, strict=True))
        for i, ((prefix, step), (before, kept)) in reversed(list(enumerate(steps))):
            inner = wanted[0], wanted[1] or any(runs[:i])
            if not runs[i]:
                more, w_bar = _matrix_vjp(step, before, kept, w_bar)
            elif before is None:
                more, bar = step._forward_vjp(kept, bar, inner)
            else:
                more, w_bar, bar = step._forward_after_vjp(kept, bar, inner)
            add_gradients(gradients, prefix, more)
        return gradients, w_bar, bar

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
        gradients: Gradients = {}
        for prefix, step in self._parts().items():
            add_gradients(gradients, prefix, step._log_det_vjp(shape, log_det_bar))
        return gradients

    @derived
    def _saves_log_det(self) -> bool:
        return all(step._saves_log_det for step in self._steps)

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        saved = [step._log_det_saving(shape) for step in self._steps]
        total = saved[0][0]
        for log_det, _ in saved[1:]:
            total = total + log_det
        return total, [memo for _, memo in saved]

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        added = dict(gradients)
        for (prefix, step), kept in zip(self._parts().items(), memo, strict=True):
            own = {}
            for name in step._parameter_names:
                if (full := f"{prefix}.{name}") in gradients:
                    own[name] = gradients[full]
            add_gradients(added, prefix, step._add_log_det_vjp(own, shape, log_det_bar, kept))
        return added

    def _condition(self, shape: Shape) -> Condition:
        return in_one_norm(self, shape)

    def _bounds(self, shape: Shape) -> list[Bounds]:
        of_steps = [bounds for step in self._steps for bounds in step._bounds(shape)]
        if (bias := getattr(self, "bias", None)) is not None:
            of_steps.append(Bounds(1.0, 1.0, 1, largest_entry(bias)))
        return of_steps

    def _computation(
        self, shape: Shape, factored: bool = True, state: State | None = None
    ) -> list[Step]:
        solver = None if state is None else state.solver
        states = solver.states if isinstance(solver, Steps) else [None] * len(self._steps)
        steps = [
            step.within(name)
            for (name, part), known in zip(self._parts().items(), states, strict=True)
            for step in part._computation(shape, factored, known)
        ]
        if (bias := getattr(self, "bias", None)) is not None:
            steps.append(shift("bias", lambda x: per_channel(bias, x)))
        return steps
