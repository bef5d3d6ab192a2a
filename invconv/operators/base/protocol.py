"""The protocol of a class of invertible convolutions: what it supplies, and what the bias adds.

The pieces work on arrays (B, C, *spatial) in a precision that can be solved in. `_apply` is K x,
and everything about the bias b is here, once:

    forward   y = K x + b           gradients of <y_bar, y>:  x_bar = K^T y_bar,  b_bar = sum y_bar
    inverse   x = K^-1 (y - b)      gradients of <x_bar, x>:  y_bar = K^-T x_bar, b_bar = -sum y_bar

`base.operator` derives the public methods from these. `base.linear` has most of them for operators
of one matrix, `operators.composite` for those made of others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
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
    """Put the gradients of a part, which has a name, among those of the whole."""
    for name, gradient in more.items():
        gradients[f"{part}.{name}"] = gradient


@dataclass(frozen=True, eq=False, repr=False)
class Protocol(Parametrised, ABC):
    """What `InvertibleConv` is derived from."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """C, the number of channels."""

    @property
    @abstractmethod
    def ndim(self) -> int | None:
        """The number of spatial axes; None for one batch axis and any number of spatial ones."""

    @abstractmethod
    def transpose(self) -> Protocol:
        """Return the operator of the transposed matrix, without bias."""

    _mixing: ClassVar[str | None] = None  # the word by which flows and torch's Conv1x1 know it
    # whether K is one matrix at every pixel, which `operators.composite` gathers with the next step
    _pointwise: ClassVar[bool] = False
    # whether K is the same at every pixel and sees no other, so that any grid is like any other
    _pixelwise: ClassVar[bool] = False
    # whether the inverse is of what the way forward is of, and `_made_ready` makes that ready
    _solves_by_applying: ClassVar[bool] = False
    # whether it is solved forward and applied backward
    _turned: ClassVar[bool] = False
    # whether frequencies decouple K, so that the error of its inverse is found without its taps
    _spectral: ClassVar[bool] = False
    # whether the way forward contains an inverse, whose condition has to be looked at
    _inverts_forward: ClassVar[bool] = False
    # whether `_log_det_saving` and `_add_log_det_vjp` are as quick as a derivative by autodiff
    _saves_log_det: ClassVar[bool] = False
    # whether the derivative of x = inverse(y) needs y, besides x
    _needs_y: ClassVar[bool] = False
    # whether the memo of `_forward_saving` holds y
    _keeps_y: ClassVar[bool] = False
    # how many axes the array of `_reference` has, where a class knows it
    _rank: ClassVar[int | None] = None

    @derived
    def _stacked(self) -> str | None:
        """Return the name of an array with a further axis, as JAX's trees may have, or None."""
        if self._rank is None:
            return None
        name, array = self._reference()
        return name if array.ndim > self._rank else None

    def _weights(self) -> Array:
        """Return what the map is linear in: the C x C matrix of a pointwise one."""
        raise NotImplementedError

    def _weights_saving(self) -> tuple[Array, Any]:
        """Return w, and what its derivative would have to compute again."""
        return self._weights(), None

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        """Return the gradients of <w_bar, w> with respect to the parameters."""
        raise NotImplementedError

    def _prime(self) -> None:
        """Compute what depends on no value, so that copies by ``_with`` have it."""
        _ = self.channels, self.ndim, self._parameter_names, self._stacked

    @abstractmethod
    def _apply(self, x: Array) -> Array:
        """Return K x."""

    @abstractmethod
    def _factor(self, shape: Shape) -> State:
        """Return the factored map, with its bias."""

    def _factor_by_substitution(self, shape: Shape, state: State | None = None) -> State:
        """Return the factored map as code that is traced or differentiated runs it.

        It is the ``state`` that `_factor` returned, if given, where the two do not differ.
        """
        return self._factor(shape) if state is None else state

    @abstractmethod
    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        """Return the gradients of <y_bar, K x>, and K^T y_bar.

        The memo is what `_forward_saving` kept; ``wanted`` says which of the two are asked for.
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
        """Return log|det K|, and what its derivative would have to compute again."""
        return self._log_det(shape), None

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        """Return gradients with those of log_det_bar log|det K| added, perhaps in their memory.

        The memo is what `_log_det_saving` kept. Where K is singular, they are not finite.
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
        """Return where along an axis the pixels are whose columns of K hold all others', shifted.

        None where they may be anywhere; ``transposed`` asks for those of K^T.
        """
        return tuple(0 if self._pixelwise else None for _ in shape)

    @abstractmethod
    def _condition(self, shape: Shape) -> Condition:
        """Return the condition; the operator is NumPy float64."""

    def _bounds(self, shape: Shape) -> list[Bounds]:
        """Return what bounds the errors of each step at O(1) cost, or `UNBOUNDED`; likewise."""
        return [UNBOUNDED]

    def _products(self, shape: Shape, compiled: bool = False) -> float:
        """Return how many products K x takes of one sample, about.

        ``compiled`` says whether those count less that a compiled kernel does as it is judged.
        """
        parts = sum(part._products(shape, compiled) for part in self._operators())
        return parts or float(sum(size(a.shape) for a in self._arrays().values()) * size(shape))

    @derived
    def _closed(self) -> bool:
        """Return whether a part of it sees the grid as closed on itself, or mirrored."""
        return any(part._closed for part in self._operators())

    def _operators(self) -> list[Protocol]:
        """Return the operators that this one is made of."""
        return [part for part in self._parts().values() if isinstance(part, Protocol)]

    def _made_ready(self, shape: Shape) -> Map:
        """Return x -> K x for one grid, as quick as the inverse."""
        raise NotImplementedError

    def _error_by_frequencies(self, shape: Shape, state: State | None = None) -> float:
        """Return the error of a spectral operator of NumPy arrays.

        ``state`` is what `_factor` returned of NumPy arrays, where that is known.
        """
        raise NotImplementedError

    def _computation(
        self, shape: Shape, factored: bool = True, state: State | None = None
    ) -> list[Step]:
        """Return the steps as they run, of NumPy arrays, or only the ways forward.

        The way forward is that of BLAS: to compile a kernel would take longer than to judge.
        ``state`` is what `_factor` returned, of whichever library, where that is known.
        """
        longdouble = self._reference()[1].dtype.itemsize > 8  # of which twins have no solves

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
        """Return an operator of other arrays whose inverse has a 2-norm of at most ``gain``.

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
        """Return K x + b, and what its derivative needs: x, or that of every step."""
        return self._forward(x), x

    def _forward_after_saving(self, weight: Array, x: Array) -> tuple[Array, Any]:
        """Return forward(W x) for a C x C matrix W, and what `_forward_after_vjp` needs."""
        y, memo = self._forward_saving(multiply(weight, x))
        return y, (weight, x, memo)

    def _forward_after_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array, Array]:
        """Return the gradients of <y_bar, forward(W x)>, the one by W, and that by x."""
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
