"""Operators of one matrix that is linear in weights; they fill in most of the protocol.

    y = A(w) x + b

A class supplies the family of A (`invconv.kernels.families`), the weights w, the log-determinant
with its gradient, and its condition. `invconv.kernels.rules` has the derivatives.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, readable, to_float
from invconv.kernels import maps, rules
from invconv.kernels.families import LinearFamily
from invconv.kernels.primitives import shifted
from invconv.kernels.solver import Solver
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.protocol import BOTH, Gradients
from invconv.solve.state import Map, State, nan_where_singular


class Linear(InvertibleConv, abstract=True):
    """y = A(w) x + b."""

    @property
    @abstractmethod
    def _family(self) -> LinearFamily:
        """The family of A."""

    @abstractmethod
    def _weights(self) -> Array:
        """Return w."""

    @abstractmethod
    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        """Return the gradients of <w_bar, w> with respect to the parameters."""

    @property
    @abstractmethod
    def _singular_hint(self) -> str:
        """The parameter to check if the operator is singular, for the error."""

    @abstractmethod
    def transpose(self) -> Linear:
        """Return the operator of the transposed matrix, without bias."""

    def _prime(self) -> None:
        super()._prime()
        _ = self._family

    def _apply(self, x: Array) -> Array:
        return maps.apply(self._family, self._weights(), x)

    def _solver(self, shape: Shape) -> Solver:
        return maps.factor(self._family, self._weights(), shape)

    def _transposed_solver(self, shape: Shape) -> Solver:
        family = self._family
        return maps.factor(family.transpose(), family.adjoint(self._weights()), shape)

    def _factor(self, shape: Shape) -> State:
        log_det = self._log_det(shape)
        known = self._require_regular(shape, log_det)
        return State(self._solver(shape), log_det, getattr(self, "bias", None), guarded=not known)

    def _require_regular(self, shape: Shape, log_det: Array) -> bool:
        """Return whether log|det K| can be looked at; raise where it is -inf."""
        known = readable(log_det)
        if known and to_float(log_det) == -math.inf:
            grid = " x ".join(map(str, shape))
            raise SingularConvError(
                f"{type(self).__name__} is exactly singular on a grid of {grid} (log_det is -inf"
                f"{self._finite_elsewhere(shape)}), so it has no inverse: {self._singular_hint}"
            )
        return known

    def _finite_elsewhere(self, shape: Shape) -> str:
        """Return a note for the error if float64 on NumPy is not singular, else ""."""
        with np.errstate(all="ignore"):
            log_det = to_float(self._on_host(np.float64)._log_det(shape))
        if not math.isfinite(log_det):
            return ""
        return f", and {log_det:.6g} in NumPy's float64: a number is too small here"

    def _forward_saving(self, x: Array) -> tuple[Array, Any]:
        w, parts = self._weights_saving()
        y, bias = maps.apply(self._family, w, x), getattr(self, "bias", None)
        return y if bias is None else shifted(y, bias), (x, w, parts)

    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        x, w, parts = memo
        w_bar, x_bar = rules.apply_vjp(self._family, w, x, y_bar, wanted)
        return self._weights_vjp(w_bar, parts) if wanted[0] else {}, x_bar

    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        shape = tuple(x.shape[2:])
        transposed = self._transposed_solver(shape)
        if not readable(x):  # of a readable x the solve has raised already if K is singular
            x_bar = nan_where_singular(x_bar, self._log_det(shape))
        w_bar, y_bar = rules.solve_vjp(self._family, transposed, x, x_bar, BOTH)
        return self._weights_vjp(w_bar), y_bar

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        log_det, memo = self._log_det_saving(shape)
        self._require_regular(shape, log_det)
        return self._add_log_det_vjp({}, shape, log_det_bar, memo)

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        return self._apply, self._factor(shape).linear().solve

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        return self.transpose()._apply, self._transposed_solver(shape)
