"""Two families as researchers write them, in NumPy, and eleven bugs that one writes with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Family, Plan, array


@dataclass(frozen=True)
class Solve:
    """y -> A^-1 y."""

    family: Any
    weights: Any
    n: int
    plan = Plan("as its author solves it")

    def __call__(self, y: Any) -> Any:
        return self.family.solve(self.weights, y)


class Own(Family):
    """What the two share: A^T has the same weights."""

    forth: bool

    def factor(self, w: Any, shape: Any) -> Any:
        return Solve(self, w, shape[-1])

    def transpose(self) -> Any:
        return type(self).of(not self.forth)

    def adjoint(self, w: Any) -> Any:
        return w

    def shape_of(self, x: Any) -> Any:
        return x.shape[1], 3

    def add_log_det_vjp(self, known: Any, w: Any, shape: Any, memo: Any, bar: Any) -> Any:
        found = (bar * self.slope(w, shape)).astype(w.dtype)
        return found if known is None else known + found

    def slope(self, w: Any, shape: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Mixed(Own):
    """y[c] = sum_j w[0, j] x[c - j] at each pixel, c the channels: a triangular matrix."""

    forth: bool = True

    def square(self, w: Any) -> Any:
        square = sum(a * np.eye(len(w), k=-j, dtype=w.dtype) for j, a in enumerate(w[0]))
        return square if self.forth else square.T

    def apply(self, w: Any, x: Any) -> Any:
        return np.einsum("ij,bj...->bi...", self.square(w), x)

    def gram(self, x: Any, y: Any) -> Any:
        x, y = (x, y) if self.forth else (y, x)
        found = np.zeros((x.shape[1], 3), x.dtype)
        found[0] = [(y[:, j:] * x[:, : x.shape[1] - j]).sum() for j in range(3)]
        return found

    def solve(self, w: Any, y: Any) -> Any:
        return np.einsum("ij,bj...->bi...", np.linalg.inv(self.square(w)), y)

    def pivots(self, w: Any) -> Any:
        return np.broadcast_to(w[0, 0], (len(w),))

    def slope(self, w: Any, shape: Any) -> Any:
        found = np.zeros_like(w)
        found[0, 0] = len(w) * np.prod(shape) / w[0, 0]
        return found


@dataclass(frozen=True)
class Rows(Own):
    """y[c, p] = sum_j w[c, j] x[c, p - j mod n] along each row of n pixels."""

    forth: bool = True

    def spectrum(self, w: Any, n: int) -> Any:
        wrapped = sum(w[:, j : j + 1] * np.eye(n)[j % n] for j in range(w.shape[1]))
        found = np.fft.rfft(wrapped)
        return found if self.forth else found.conj()

    def filtered(self, spectrum: Any, x: Any) -> Any:
        spectrum = spectrum.reshape(x.shape[1], *(1,) * (x.ndim - 3), -1)
        return np.fft.irfft(spectrum * np.fft.rfft(x), x.shape[-1]).astype(x.dtype)

    def apply(self, w: Any, x: Any) -> Any:
        return self.filtered(self.spectrum(w, x.shape[-1]), x)

    def gram(self, x: Any, y: Any) -> Any:
        axes, way = (0, *range(2, x.ndim)), 1 if self.forth else -1
        return np.stack([(y * np.roll(x, way * j, -1)).sum(axes) for j in range(3)], -1)

    def solve(self, w: Any, y: Any) -> Any:
        return self.filtered(1 / self.spectrum(w, y.shape[-1]), y)

    def times(self, n: int) -> Any:
        """Return how often each frequency of `rfft` counts."""
        return 2 - np.isin(2 * np.arange(n // 2 + 1) % n, 0)

    def log_det(self, w: Any, shape: Any, saving: bool) -> Any:
        logs = self.times(shape[-1]) * np.log(abs(self.spectrum(w, shape[-1])))
        return np.asarray(np.prod(shape[:-1]) * logs.sum(), w.dtype), None

    def slope(self, w: Any, shape: Any) -> Any:
        n, way = shape[-1], -1 if self.forth else 1
        waves = np.exp(way * 2j * np.pi * np.outer(np.arange(n // 2 + 1), np.arange(3)) / n)
        return np.prod(shape[:-1]) * (self.times(n) / self.spectrum(w, n) @ waves).real


def last_twice(n: int) -> Any:
    """Return the counts of frequencies that are right for odd n alone."""
    return 2 - (np.arange(n // 2 + 1) == 0)


def once_too_often(self: Any, w: Any, shape: Any, saving: bool) -> Any:
    """Return a log-determinant in which the last frequency of an even grid counts twice."""
    logs = last_twice(shape[-1]) * np.log(abs(self.spectrum(w, shape[-1])))
    return np.asarray(np.prod(shape[:-1]) * logs.sum(), w.dtype), None


def cut(self: Any, w: Any, y: Any) -> Any:
    """Solve with taps beyond the grid left out, as rfft(w, n) does."""
    return self.filtered(1 / self.spectrum(w[:, : y.shape[-1]], y.shape[-1]), y)


# the family, the bug, and the method that the message has to name
BUGS: list[tuple[type[Own], dict[str, Any], str]] = [
    (Mixed, {"gram": lambda s, x, y: 0.5 * Mixed.gram(s, x, y)}, "gram"),
    (Mixed, {"solve": lambda s, w, y: y / w[0, 0]}, "factor"),
    (Mixed, {"pivots": lambda s, w: w[0, :1]}, "pivots"),
    (Mixed, {"slope": lambda s, w, shape: Mixed.slope(s, w, shape[:1])}, "add_log_det_vjp"),
    (Mixed, {"transpose": lambda s: s}, "transpose"),
    (Mixed, {"adjoint": lambda s, w: 2 * w}, "adjoint"),
    (Rows, {"log_det": once_too_often}, "log_det"),
    (Rows, {"log_det": lambda s, w, shape, _: Rows.log_det(s, w, shape[1:], _)}, "log_det"),
    (Rows, {"slope": lambda s, w, shape: Rows.slope(s, w, shape[1:])}, "add_log_det_vjp"),
    (Rows, {"gram": lambda s, x, y: Rows.gram(s, y, x)}, "gram"),
    (Rows, {"solve": cut}, "factor"),
]


def operator(family: type[Own], bug: dict[str, Any]) -> ic.InvertibleConv:
    """Return an operator of a family, with a bug in some of its methods."""
    if bug:
        family = dataclass(frozen=True)(type("Buggy", (family,), {"__module__": __name__} | bug))

    class Layer(ic.InvertibleConv):
        kernel: Any = array("C", "k")
        ndim: int = 2

        def factors(self) -> Any:
            return [(family.of(True), self.kernel)]

        def factors_vjp(self, bars: Any) -> Any:
            return {"kernel": bars[0]}

    return Layer(np.asarray([[2.0, 0.5, -0.3], [1.5, -0.2, 0.4], [1.8, 0.3, 0.5]]))
