"""The protocol of a class of invertible convolutions: its private methods, and the bias.

The methods work on arrays (B, C, *spatial) in a precision that can be solved in. `_apply` is K x;
the bias b is handled here, once:

    forward   y = K x + b           gradients of <y_bar, y>:  x_bar = K^T y_bar,  b_bar = sum y_bar
    inverse   x = K^-1 (y - b)      gradients of <x_bar, x>:  y_bar = K^-T x_bar, b_bar = -sum y_bar

`base.operator` derives the public methods from these. `base.linear` has most of them for operators
of one matrix, `operators.composite` for operators made of operators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, namespace, size
from invconv.arrays.registry import agnostic
from invconv.kernels import rules
from invconv.kernels.families import MatrixFamily
from invconv.kernels.primitives import multiply, per_channel, shifted
from invconv.operators.base.parameters import Parametrised
from invconv.solve.state import Map, State
from invconv.trust.bound import UNBOUNDED, Bounds
from invconv.trust.condition import Condition
from invconv.trust.measured import Step, unknown

Gradients = dict[str, Array]
BOTH = (True, True)


def add_gradients(gradients: Gradients, part: str, more: Gradients) -> None:
    """Add the gradients of a named part to the gradients of the whole operator."""
    for name, gradient in more.items():
        gradients[f"{part}.{name}"] = gradient


class Protocol(Parametrised, ABC, abstract=True):
    """The private methods of an operator, from which `InvertibleConv` derives the public ones."""

    @abstractmethod
    def transpose(self) -> Protocol:
        """Return the operator of the transposed matrix, without bias."""

    # K is one C x C matrix at every pixel, which `operators.composite` multiplies into the next
    # step
    _pointwise: ClassVar[bool] = False
    # K acts on each pixel alone and alike, so that the grid does not matter
    _pixelwise: ClassVar[bool] = False
    # the inverse is a map of the forward map's kind; `_made_ready` prepares the forward map
    _solves_by_applying: ClassVar[bool] = False
    # the operator is an `Inverse`: it solves forward and applies backward
    _turned: ClassVar[bool] = False
    # K is one matrix a frequency, so that the error of its inverse is measured without its taps
    _spectral: ClassVar[bool] = False
    # the forward map contains an inverse, which must be judged
    _inverts_forward: ClassVar[bool] = False
    # `_log_det_saving` and `_add_log_det_vjp` are as quick as a derivative by autodiff
    _saves_log_det: ClassVar[bool] = False
    # the derivative of x = inverse(y) needs y besides x
    _needs_y: ClassVar[bool] = False
    # the memo of `_forward_saving` holds y
    _keeps_y: ClassVar[bool] = False

    def _weights(self) -> Array:
        """Return the weights w in which the map is linear, such as the matrix of a 1x1."""
        raise NotImplementedError

    def _weights_saving(self) -> tuple[Array, Any]:
        """Return w, and intermediate results for `_weights_vjp`."""
        return self._weights(), None

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        """Return the gradients of <w_bar, w> with respect to the parameters."""
        raise NotImplementedError

    def _prime(self) -> None:
        """Compute the cached properties that depend on no values, so that copies share them."""
        _ = self.channels, self.ndim, self._parameter_names, self._stacked

    @abstractmethod
    def _apply(self, x: Array) -> Array:
        """Return K x."""

    @abstractmethod
    def _factor(self, shape: Shape) -> State:
        """Return the factored map, with its bias."""

    def _factor_by_substitution(self, shape: Shape, state: State | None = None) -> State:
        """Return the factored map in the form that traced or differentiated code runs.

        If ``state``, the result of `_factor`, is given and has this form, it is returned.
        """
        return self._factor(shape) if state is None else state

    @abstractmethod
    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        """Return the gradients of <y_bar, K x>, and K^T y_bar.

        ``memo`` comes from `_forward_saving`; ``wanted`` tells which of the two are needed.
        """

    @abstractmethod
    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        """Return the gradients of <x_bar, x> for x = K^-1 y, and K^-T x_bar."""

    @abstractmethod
    def _log_det(self, shape: Shape) -> Array:
        """Return log|det K|."""

    @abstractmethod
    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        """Return the gradients of log_det_bar log|det K|."""

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        """Return log|det K|, and intermediate results for `_add_log_det_vjp`."""
        return self._log_det(shape), None

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        """Return gradients plus the gradients of log_det_bar log|det K|, perhaps in their memory.

        ``memo`` comes from `_log_det_saving`. If K is singular, the gradients are not finite.
        """
        more = self._log_det_vjp(shape, log_det_bar)
        return gradients | {n: gradients[n] + g if n in gradients else g for n, g in more.items()}

    @abstractmethod
    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        """Return x -> K x and y -> K^-1 y, without any bias."""

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        """Return x -> K^T x and y -> K^-T y."""
        return self.transpose()._linear_maps(shape)

    def _longest_columns(self, shape: Shape, transposed: bool) -> tuple[int | None, ...]:
        """Return a pixel index per axis: every column of K is a shift of the column at that pixel.

        The index is None along an axis without such a pixel; ``transposed`` asks for K^T.
        """
        return tuple(0 if self._pixelwise else None for _ in shape)

    @abstractmethod
    def _condition(self, shape: Shape) -> Condition:
        """Return the condition; the operator is NumPy float64."""

    def _bounds(self, shape: Shape) -> list[Bounds]:
        """Return bounds of each step's errors at O(1) cost, or `UNBOUNDED`, in NumPy float64."""
        return [UNBOUNDED]

    def _products(self, shape: Shape, compiled: bool = False) -> float:
        """Return about how many products K x takes for one sample.

        If ``compiled``, products that a compiled kernel computes count less.
        """
        parts = sum(part._products(shape, compiled) for part in self._operators())
        return parts or float(sum(size(a.shape) for a in self._arrays().values()) * size(shape))

    @derived
    def _closed(self) -> bool:
        """Tell whether a part of the operator continues the grid periodically or by mirroring."""
        return any(part._closed for part in self._operators())

    def _operators(self) -> list[Protocol]:
        """Return the parts of this operator."""
        return [part for part in self._parts().values() if isinstance(part, Protocol)]

    def _made_ready(self, shape: Shape) -> Map:
        """Return x -> K x prepared for one grid, as quick as the inverse."""
        raise NotImplementedError

    def _error_by_frequencies(self, shape: Shape, state: State | None = None) -> float:
        """Return the error of a spectral operator of NumPy arrays.

        ``state`` is the result of `_factor` on NumPy arrays, if it is known.
        """
        raise NotImplementedError

    def _computation(
        self, shape: Shape, factored: bool = True, state: State | None = None
    ) -> list[Step]:
        """Return the steps on NumPy arrays as they run; unless ``factored``, without solves.

        The forward maps run by BLAS: to compile a kernel would take longer than to judge.
        ``state`` is the result of `_factor`, in any library, if it is known.
        """
        longdouble = self._reference()[1].dtype.itemsize > 8  # BLAS has no longdouble

        def apply(x: Array) -> Array:
            with agnostic(not longdouble):
                return self._forward(x)

        forward: Map = apply if longdouble or not self._pixelwise else self._forward
        if self._solves_by_applying and not longdouble:
            ready, bias = self._made_ready(shape), getattr(self, "bias", None)
            forward = ready if bias is None else lambda x: shifted(ready(x), bias)
        if not factored:
            return [Step("", type(self).__name__, forward, unknown, unknown)]
        state = self._factor_by_substitution(shape, None if state is None else state.as_numpy())
        solves = state.solve, state.linear().solve
        return [Step("", type(self).__name__, forward, *solves)]

    def _within(self, gain: float) -> Self:
        """Return an operator with other arrays; its inverse has a 2-norm of at most ``gain``.

        Raises
        ------
        TypeError
            Where the class has no such parametrisation.
        """
        raise TypeError(
            f"conv: expected an operator whose class bounds its inverse, got {type(self).__name__}"
        )

    def _forward(self, x: Array) -> Array:
        y, bias = self._apply(x), getattr(self, "bias", None)
        return y if bias is None else y + per_channel(bias, y)

    def _forward_after(self, weight: Array, x: Array) -> Array:
        """Return forward(W x) for a C x C matrix W."""
        y, bias = self._apply_after(weight, x), getattr(self, "bias", None)
        return y if bias is None else y + per_channel(bias, y)

    def _apply_after(self, weight: Array, x: Array) -> Array:
        return self._apply(multiply(weight, x))

    def _forward_saving(self, x: Array) -> tuple[Array, Any]:
        """Return K x + b, and a memo for `_forward_vjp`: x, or the memo of every step."""
        return self._forward(x), x

    def _forward_after_saving(self, weight: Array, x: Array) -> tuple[Array, Any]:
        """Return forward(W x) for a C x C matrix W, and a memo for `_forward_after_vjp`."""
        y, memo = self._forward_saving(multiply(weight, x))
        return y, (weight, x, memo)

    def _forward_after_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array, Array]:
        """Return the gradients of <y_bar, forward(W x)> by the parameters, by W and by x."""
        weight, x, kept = memo
        gradients, bar = self._forward_vjp(kept, y_bar, (wanted[0], True))
        return gradients, *rules.apply_vjp(MatrixFamily(), weight, x, bar, wanted)

    def _forward_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        gradients, x_bar = self._apply_vjp(memo, y_bar, wanted)
        return self._with_bias_gradient(gradients, y_bar, 1), x_bar

    def _inverse_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        """Pull x_bar back through x = inverse(y); y may be None unless `_needs_y`."""
        bias = getattr(self, "bias", None)
        linear = y if y is None or bias is None else y - per_channel(bias, y)
        gradients, y_bar = self._solve_vjp(linear, x, x_bar)
        return self._with_bias_gradient(gradients, y_bar, -1), y_bar

    def _with_bias_gradient(self, gradients: Gradients, y_bar: Array, sign: int) -> Gradients:
        if getattr(self, "bias", None) is None:
            return gradients
        axes = (0, *range(2, y_bar.ndim))
        return gradients | {"bias": sign * namespace(y_bar).sum(y_bar, axis=axes)}
