"""A case on a library, device and dtype, and the truth about it in extended precision."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, Shape, copy_of, to_numpy
from invconv_conformance.cases.table import Case
from invconv_conformance.laws.law import Floats, Measure, largest, values
from invconv_conformance.libraries import Target
from invconv_conformance.truth import oracle
from invconv_conformance.truth.bounds import C_FACTOR, EPS, LEAST, Scales, scales
from invconv_conformance.truth.oracle import EXTENDED, ExtendedLU

# computations that are not methods: functions of an operator, a grid and an image
MORE: dict[str, Callable[[ic.InvertibleConv, Shape, Array], Array]] = {
    "log_det": lambda conv, shape, x: conv.log_det(shape),
    "log_det of the inverse": lambda conv, shape, x: ic.Inverse(conv).log_det(shape),
    "transpose": lambda conv, shape, x: conv.transpose().forward(x),
}
DIRECTIONS = ("forward_and_log_det", "inverse_and_log_det")
PULLBACKS = ("forward_vjp", "inverse_vjp")
REPEATED = "one sample in place of all"  # the one way of `Setting.memories` that changes numbers


def everything(conv: Any, x: Array, pullbacks: Sequence[str] = PULLBACKS) -> dict[str, Array]:
    """Return the result of every method that computes, by name: "forward_vjp by kernel"."""
    found = {}
    for what in DIRECTIONS:
        found[what], found[f"log_det of {what}"] = getattr(conv, what)(x)
    for what in pullbacks:
        gradients, found[what] = getattr(conv, what)(x, x)
        found |= {f"{what} by {name}": gradient for name, gradient in gradients.items()}
    return found


class Compiled:
    """An operator whose methods run in one compiled program, since compilers are slow."""

    def __init__(self, setting: "Setting") -> None:
        self._setting, self.parameters = setting, setting.plain.parameters
        self._program = setting.target.compile(self._everything)

    def _everything(
        self, parameters: dict[str, Array], x: Array, bar: Array, log_det_bar: Array
    ) -> dict[str, Any]:
        conv, shape = self._setting.plain.replace(**parameters), self._setting.case.spatial_shape
        found = {what: getattr(conv, what)(x) for what in DIRECTIONS}
        found |= {what: getattr(conv, what)(x, bar, log_det_bar) for what in PULLBACKS}
        return found | {what: run(conv, shape, x) for what, run in MORE.items()}

    def run(self, what: str, x: Array, bar: Array = None, log_det_bar: Array = None) -> Any:
        """Return one result of the program."""
        if log_det_bar is None:
            batch = x.shape[: len(self._setting.case.batch_shape)]
            log_det_bar = self._setting.cotangent(np.zeros(tuple(batch)))
        if bar is None or bar is x:  # torch.compile makes another program if both are one array
            bar = copy_of(x)
        return self._program(self.parameters(), x, bar, log_det_bar)[what]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method: a result of the program."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ("forward", "inverse"):
            return lambda x: self.run(f"{name}_and_log_det", x)[0]
        return lambda *arrays: self.run(name, *arrays)


@dataclass(frozen=True, eq=False)
class Setting:
    """A case on a target in a dtype, and the truth about the rounded numbers that it was given."""

    case: Case
    target: Target
    dtype: str
    known = True  # whether the case is the suite's; a user's parameters may have no effect

    def fresh(self) -> ic.InvertibleConv:
        """Return the operator on the library, in memory of its own."""
        return self.case.conv().asarrays(self.array(np.zeros(())))

    @functools.cached_property
    def plain(self) -> ic.InvertibleConv:
        """The operator on the library."""
        return self.fresh()

    @functools.cached_property
    def conv(self) -> ic.InvertibleConv | Compiled:
        """The operator as the target's mode runs it."""
        return self.plain if self.target.mode == "eager" else Compiled(self)

    def more(self, what: str, x: Array) -> Array:
        """Return "log_det" (of one sample), "log_det of the inverse", or "transpose" (K^T x)."""
        if isinstance(self.conv, Compiled):
            return self.conv.run(what, x)
        return MORE[what](self.conv, self.case.spatial_shape, x)

    @functools.cached_property
    def host(self) -> ic.InvertibleConv:
        """The same numbers in NumPy float64."""
        return self.plain.asarrays(np.empty(0))

    def dense(self, conv: ic.InvertibleConv) -> tuple[Floats, Floats]:
        """Return the dense matrix and shift of an operator of the case's class, in float64."""
        return oracle.affine(conv, self.case.spatial_shape)

    @functools.cached_property
    def affine(self) -> tuple[Floats, Floats]:
        """The dense matrix and shift."""
        return oracle.affine(self.host, self.case.spatial_shape, EXTENDED)

    @property
    def size(self) -> int:
        """C N, the numbers of a sample."""
        return len(self.affine[1])

    @functools.cached_property
    def lu(self) -> ExtendedLU:
        """The dense matrix, factored."""
        return ExtendedLU(self.affine[0])

    @functools.cached_property
    def scales(self) -> Scales:
        """The sizes that the bounds depend on."""
        return scales(self.host, self.case.spatial_shape, (self.affine[0], self.lu))

    @property
    def unit(self) -> float:
        """C m eps, of the dtype that is computed in."""
        return C_FACTOR * self.scales.terms * EPS[self.log_det_dtype]

    @property
    def lever(self) -> float:
        """C m eps |K| |K^-1|."""
        return self.unit * self.scales.condition

    def cast(self, size: Floats, count: int | None = None) -> Floats:
        """Return the error of a cast to a half type, for arrays of these 2-norms; else 0.

        They have as many numbers as a sample unless given.
        """
        if self.dtype == self.log_det_dtype:
            return np.zeros_like(size)
        least = LEAST[self.dtype] * math.sqrt(self.size if count is None else count)
        return EPS[self.dtype] * size + least

    def reach(self, x: Floats) -> Floats:
        """Return |K| |x| + |b| of each sample."""
        return self.scales.gain * self.norm(x) + self.shift_norm

    def solve_bound(self, x: Floats) -> Floats:
        """Return the bound of the error of each sample of an inverse, x."""
        size = self.norm(x)
        return self.lever * (size + self.scales.loss * self.shift_norm) + self.cast(size)

    def gradient_bound(self, size: float) -> float:
        """Return the bound of the difference of two ways to a gradient of a size; both solve."""
        return self.lever * self.scales.condition * size + float(self.cast(np.asarray(size)))

    def two_ways(self, what: str, found: Floats, wanted: Floats, size: float) -> Measure:
        """Return the measure of two ways to a gradient that is a sum of terms of a size."""
        bound = self.gradient_bound(largest(wanted) + size)
        return Measure(what, largest(found - wanted), bound)

    def array(self, values: Floats) -> Array:
        """Put values on the device."""
        return self.target.asarray(values, self.dtype)

    def memories(self) -> dict[str, Callable[[Floats], Array]]:
        """Return ways to hold the same numbers, none where the library has no views."""
        if not self.target.library.views:
            return {}
        xp = self.target.library.namespace()

        def put(x: Floats) -> Array:
            return self.array(np.array(x, order="C"))

        def permuted(x: Floats, order: Sequence[int]) -> Array:
            """Return x, laid out as if its axes were in an order."""
            return xp.permute_dims(put(np.transpose(x, order)), tuple(np.argsort(order)))

        def unaligned(x: Floats) -> Floats:
            x = x.astype(self.dtype)
            held = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
            held[...] = x
            return held

        ways: dict[str, Callable[[Floats], Array]] = {
            "Fortran's order": lambda x: permuted(x, range(x.ndim)[::-1]),
            "channels last": lambda x: permuted(x, [0, *range(2, x.ndim), 1][: x.ndim]),
            "every other number": lambda x: put(np.stack([x, x + 1], -1))[..., 0],
            REPEATED: lambda x: xp.broadcast_to(put(x[:1]), x.shape),
        }
        if self.target.library.name == "torch":
            ways["signs that are to be turned"] = lambda x: put(-x)._neg_view()  # z.conj().imag
        if self.target.library.name == "numpy":
            dtype, swapped = self.dtype, np.dtype(self.dtype).newbyteorder()
            ways |= {
                "read-only memory": lambda x: np.frombuffer(
                    x.astype(dtype).tobytes(), dtype
                ).reshape(x.shape),
                "a foreign byte order": lambda x: x.astype(swapped),
                "backwards": lambda x: np.flip(np.flip(x).astype(dtype)),
                "odd addresses": unaligned,
            }
        return ways

    def cotangent(self, values: Floats) -> Array:
        """Put values on the device, in the dtype of a log-determinant."""
        return self.target.asarray(values, self.log_det_dtype)

    @functools.cached_property
    def ones(self) -> Array:
        """A cotangent of one for the log-determinant of each sample."""
        return self.cotangent(np.ones(self.case.batch_shape))

    @functools.cached_property
    def images(self) -> tuple[Floats, ...]:
        """Three random arrays, rounded to the dtype."""
        return tuple(self._rounded(x) for x in self.case.images(3))

    def _rounded(self, x: Floats) -> Floats:
        return to_numpy(self.array(x)).astype(np.float64)

    @functools.cached_property
    def outputs(self) -> dict[str, Floats]:
        """The arrays that the inverse is judged on: a random y, and the y of a random x."""
        image = self._rounded(self.forward(self.images[0]).astype(np.float64))
        return {"random y": self.images[1], "y = K x + b": image}

    @property
    def log_det_dtype(self) -> str:
        """The dtype of log-determinants, float32 for the half types."""
        return "float32" if self.dtype in ("float16", "bfloat16") else self.dtype

    def rows(self, x: Floats) -> Floats:
        """Return the samples as rows, in extended precision."""
        return x.reshape(-1, self.size).astype(EXTENDED)

    def forward(self, x: Floats) -> Floats:
        """Return the true K x + b."""
        return (self.rows(x) @ self.affine[0].T + self.affine[1]).reshape(x.shape)

    def inverse(self, y: Floats) -> Floats:
        """Return the true K^-1 (y - b)."""
        return self.lu.solve((self.rows(y) - self.affine[1]).T).T.reshape(y.shape)

    def transposed(self, y: Floats, *, inverse: bool = False) -> Floats:
        """Return the true K^T y, or K^-T y."""
        rows = self.rows(y)
        turned = self.lu.solve(rows.T, transposed=True).T if inverse else rows @ self.affine[0]
        return turned.reshape(y.shape)

    def norm(self, x: Floats) -> Floats:
        """Return the 2-norm of each sample."""
        return np.asarray(np.sqrt((self.rows(x) ** 2).sum(axis=1)), np.float64)

    @property
    def shift_norm(self) -> float:
        """|b|."""
        return float(self.norm(self.affine[1])[0])

    def off(self, what: str, found: Array, wanted: Floats, bound: Floats) -> Measure:
        """Return the measure of the sample of an array that uses up most of its bound."""
        error = self.norm(values(found) - wanted)
        measures = (Measure(what, float(e), float(b)) for e, b in zip(error, bound, strict=True))
        return max(measures, key=lambda measure: measure.share, default=Measure(what, 0.0, 1.0))
