"""PyTorch's native primitives, which `invconv.arrays.registry` looks up here.

The host never waits for a device. PyTorch's `slogdet` and `inv` would, to raise for a singular
matrix; here a zero pivot gives -inf, and a singular matrix NaN.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset
from invconv.families.convolutions import StencilFamily
from invconv.families.family import Family
from invconv.families.pointwise import TriangleOfRows
from invconv.kernels import exponential as core
from invconv.kernels.cpu import propagation as kernel
from invconv.kernels.cpu import recursive
from invconv.kernels.cpu.machine import reason
from invconv.kernels.exponential import Counts, counts_of
from invconv.kernels.frequencies import spectrum
from invconv.operators import propagation, recursion
from invconv.operators.propagation import Propagation
from invconv_torch.native import kernels, nodes
from invconv_torch.native.host import TorchOps, bare, exporting_to_onnx, require_onnx_form
from invconv_torch.native.kernels import Settings
from invconv_torch.native.kernels import add_pivots as add_pivots
from invconv_torch.native.kernels import by_frequencies as by_frequencies
from invconv_torch.native.nodes import Cotangents, RecordedSolver, Rule, one_by_one, run
from invconv_torch.native.nodes import evaluate as evaluate
from invconv_torch.native.nodes import for_each as for_each

ARRAY_OPS = TorchOps
_PACKED = torch.contiguous_format
_TRIANGLES = {lower: TriangleOfRows.of(lower) for lower in (False, True)}

# See `invconv.kernels.primitives.matmul`.
matmul = functools.partial(run, nodes.MATMUL, None)  # of two tensors

# See `invconv.kernels.maps`.
apply = functools.partial(run, nodes.APPLY)  # of a family, its weights and x
gram = functools.partial(run, nodes.GRAM)  # of a family, x and y


def factor(family: Family, w: Tensor, shape: tuple[int, ...]) -> Any:
    """See `invconv.kernels.maps.factor`."""
    if family.solved not in ("causal", "spectral"):
        return family.factor(w, shape)
    if torch.compiler.is_compiling():
        require_onnx_form()
    known = kernels.factor(family, w, shape, quiet=False) if bare(w) else None
    return RecordedSolver(family, w, known)


def pixel_rows(x: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.pixel_rows`; no batch's size is read, as in `for_each`."""
    return x.transpose(0, 1).contiguous().view(x.shape[1], -1)


def from_pixel_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """See `invconv.kernels.primitives.from_pixel_rows`."""
    return rows.contiguous().view(shape[1], -1, *shape[2:]).transpose(0, 1).contiguous()


def triangular_solve(matrix: Tensor, rhs: Tensor, *, lower: bool) -> Tensor:
    """See `invconv.kernels.primitives.triangular_solve`."""
    require_onnx_form()
    return run(nodes.SOLVE, (_TRIANGLES[lower], None), matrix, rhs)


def log_of_pivots(matrices: Tensor) -> Tensor:
    """Return log|det A|, shape (...), by LU factors."""
    factors = torch.linalg.lu_factor_ex(matrices)[0]
    return factors.diagonal(dim1=-2, dim2=-1).contiguous().abs().log().sum(-1)


def inverse_or_nan(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.inverse_or_nan`; a singular matrix gives NaN."""
    inverse, info = torch.linalg.inv_ex(matrices)
    return inverse.masked_fill(info.bool()[..., None, None], math.nan)


def log_abs_det(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_det`.

    LU factors are used instead of slogdet, which takes half as long again on a CPU, and whose
    forward-mode derivative has in turn a wrong derivative in PyTorch: zero.
    """
    require_onnx_form()
    return run(LOG_ABS_DET, None, matrices)


def spectral_log_det(kernel: Tensor, family: Any, shape: tuple[int, ...]) -> Tensor:
    """See `invconv.kernels.frequencies.spectrum.spectral_log_det`.

    Compiled code has an operator that hides complex numbers: Inductor mistakes the strides in the
    derivative of a complex LU factorisation, and raises.
    """
    if torch.compiler.is_compiling():
        return run(LOG_DET, (family, shape), kernel)
    return _log_det((family, shape), kernel)


def _log_det(settings: Settings, kernel: Tensor) -> Tensor:
    return torch.as_tensor(spectrum.spectral_log_det.agnostic(kernel, *settings))


def _none_compiled(*_: Any) -> Any:
    raise NotImplementedError("torch.compile has no forward mode, and no derivative of a gradient")


GRADIENT = Rule(
    "spectral_log_det_vjp",
    lambda settings, kernel: torch.as_tensor(spectrum.spectral_log_det_vjp(kernel, *settings)),
    lambda family, kernel: kernel.shape,
    _none_compiled,
    _none_compiled,
)
LOG_DET = Rule(
    "spectral_log_det",
    _log_det,
    lambda family, kernel: (),
    lambda settings, saved, bar, wanted: (bar * run(GRADIENT, settings, *saved),),
    _none_compiled,
)
LOG_ABS_DET = Rule(
    "log_abs_det",
    lambda _, matrices: log_of_pivots(matrices),
    lambda _, matrices: matrices.shape[:-2],
    # no view, for which forward mode inside a vmap has no tangent
    lambda _, saved, bar, _w: (bar[..., None, None] * inverse_or_nan(*saved).mT.conj_physical(),),
    lambda _, saved, dot: (inverse_or_nan(*saved) @ dot).diagonal(dim1=-2, dim2=-1).sum(-1).real,
)


def counted(
    family: StencilFamily, w: Tensor, kernel: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor, Counts | None]:
    """See `invconv.kernels.exponential`; a traced series counts its terms as it runs."""
    return w, counts_of(family, w.detach()) if bare(w) else None


def _recorded(
    function: Primitive[..., Any],
    like: int,
    tangent: Callable[..., Tensor],
    cotangent: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """Return a primitive that is recorded; its result has the shape of argument ``like``."""

    def agnostic(settings: Settings, *tensors: Tensor) -> Tensor:
        family, counts = settings
        return torch.as_tensor(function.agnostic(family, *tensors, counts=counts))

    def vjp(settings: Settings, saved: Sequence[Tensor], bar: Tensor, wanted: Any) -> Cotangents:
        family, counts = settings
        slots = enumerate(wanted)
        return tuple(cotangent(family, saved, i, bar, counts) if w else None for i, w in slots)

    def jvp(settings: Settings, saved: Sequence[Tensor], *dots: Tensor | None) -> Tensor | None:
        family, counts = settings
        parts = [tangent(family, saved, i, d, counts) for i, d in enumerate(dots) if d is not None]
        return sum(parts[1:], start=parts[0]) if parts else None

    rule = Rule(function.name, agnostic, lambda _, *tensors: tensors[like].shape, vjp, jvp)

    def call(family: StencilFamily, *tensors: Tensor, counts: Counts | None = None) -> Tensor:
        if len(tensors) > nodes.MOST:  # each derivative adds one: then correlations are recorded
            return agnostic((family, counts), *tensors)
        return run(rule, (family, counts), *tensors)

    return call


# See `invconv.kernels.exponential`.
exponential = _recorded(core.exponential, 1, core.exponential_tangent, core.exponential_cotangent)
exponential_gram = _recorded(core.exponential_gram, 0, core.gram_tangent, core.gram_cotangent)


def filtered(b: Tensor, a: Tensor, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """See `invconv.operators.recursion.filtered`, which has the derivatives.

    On a CPU all sections run in one pass of compiled code. If recorded, each is an operation.
    """
    given, shape = (b, a, x) if z is None else (b, a, x, z), _filter_shape(b, a, z)
    if x.device.type == "cpu" and shape.at_once and not exporting_to_onnx():
        if not bare(*given, unrecorded=True):
            return recursion.in_sections(_section, b, a, x, z)
        if reason(x.element_size()) is None:
            return _into(shape, given)
    return recursion.filtered.agnostic(b, a, x, z)


def _filter_shape(b: Tensor, a: Tensor, z: Tensor | None) -> recursive.Filter:
    order = 0 if z is None else z.shape[-1]
    return recursive.Filter(b.shape[0], b.shape[-1] - 1, a.shape[-1], order)


def _into(
    shape: recursive.Filter, given: Sequence[Tensor], back: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Filter with the compiled kernel; return y, laid out as x, and any last states."""
    b, a, x, *states = (t.resolve_neg() for t in given)
    y, length, order = torch.empty_like(x), x.shape[-1], shape.order
    found = recursive.laid_out(shape, x.shape, x.stride(), y.stride())
    if found is None:
        x, y, found = x.contiguous(), x.new_empty(x.shape), (shape, recursive.apart(length))
    b, a, states = b.contiguous(), a.contiguous(), [z.contiguous() for z in states]
    last = [z.new_zeros(z.shape) for z in states]
    places = [v.data_ptr() for v in (b, a, x, y)]
    places += [v[0].data_ptr() if v else 0 for v in (states, last)]
    code, steps = found[0], [*found[1]]
    if back:
        for place, step in ((2, 3), (3, 6)):
            places[place] += (length - 1) * steps[step] * x.element_size()
            steps[step] *= -1
    steps = [x.numel() // length, b.shape[-3], length, *steps, order, order]
    keeps = b, a, x, *states, y, *last
    recursive.run(code, x.element_size(), places, steps, torch.get_num_threads(), *keeps)
    return y, last[0] if last else None


def _filter(back: bool, _: None, b: Tensor, a: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return y with the last state behind it in every row."""
    if reason(x.element_size()) is not None:
        return recursion.by_solves(b, a, x, z, back)
    y, last = _into(_filter_shape(b[None], a[None], z), (b, a, x, z), back)
    return torch.cat([y, last], -1) if z.shape[-1] else y


def _filter_vjp(back: bool, _: None, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    compiling = torch.compiler.is_compiling()
    return (_pulled_back if compiling else _each_pulled_back)((back, saved, wanted), bar)


def _pulled_back(call: Any, bar: Tensor) -> Cotangents:
    back, (b, a, x, v), wanted = call
    order = v.shape[-1] - x.shape[-1]
    return recursion.cotangents(_section, back, b, a, x, v, bar, wanted, order)


# made once: made in each call it would be a reference cycle, which keeps the signals alive
_each_pulled_back = one_by_one(_pulled_back)


def _filter_jvp(back: bool, _: None, saved: Any, *dots: Tensor | None) -> Tensor:
    b, a, x, v = saved
    return recursion.tangent(_section, back, b, a, x, v, dots)


def _section(b: Tensor, a: Tensor, x: Tensor, z: Tensor, back: bool = False) -> Tensor:
    return run(FILTERS[back], None, b, a, x, z)


FILTERS = [
    Rule(
        name,
        functools.partial(_filter, back),
        lambda _, b, a, x, z: (*x.shape[:2], x.shape[2] + z.shape[2]),
        functools.partial(_filter_vjp, back),
        functools.partial(_filter_jvp, back),
        keeps_result=True,
    )
    for back, name in ((False, "filter"), (True, "filter_back"))
]


def _lagged(_: None, g: Tensor, x: Tensor, c: Tensor) -> Tensor:
    if reason(x.element_size()) is not None or x.device.type != "cpu":
        return recursion.lagged.agnostic(g, x, c)
    g, x = (v.resolve_neg().contiguous() for v in (g, x))
    sums = x.new_empty((*x.shape[:2], c.shape[-1]))
    places = [v.data_ptr() for v in (g, x, sums)]
    recursive.sum_lagged(
        x.element_size(), places, [x.numel() // x.shape[-1], x.shape[-1], c.shape[-1]]
    )
    return sums


def _lagged_vjp(_: None, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    g, x, _ = saved
    return recursion.lagged_cotangents(_section, g, x, bar, wanted)


def _lagged_jvp(_: None, saved: Any, g_dot: Any, x_dot: Any, _c: Any) -> Tensor | None:
    g, x, c = saved
    parts = [lagged(*pair, c) for pair in ((g_dot, x), (g, x_dot)) if None not in pair]
    return sum(parts[1:], parts[0]) if parts else None


LAGGED = Rule(
    "lagged", _lagged, lambda _, g, x, c: (*x.shape[:2], c.shape[-1]), _lagged_vjp, _lagged_jvp
)
lagged = functools.partial(run, LAGGED, None)  # of g, x and coefficients


def _propagate(family: Propagation, taps: Tensor, x: Tensor) -> Tensor:
    if not _has_kernel(family.compiled, x):
        return propagation.by_levels(family, taps, x)
    return _run_kernel(family.compiled, x, taps, torch.empty_like(x, memory_format=_PACKED))


def driven(
    family: Propagation, inputs: tuple[Offset, ...], gains: Tensor, taps: Tensor, x: Tensor
) -> Tensor:
    """See `invconv.operators.propagation`: one pass, unless derivatives are recorded."""
    shape = family.compiled._replace(inputs=inputs)
    if not bare(gains, taps, x, unrecorded=True) or not _has_kernel(shape, x):
        return propagation.by_parts(family, inputs, gains, taps, x)
    return _run_kernel(shape, x, taps, torch.empty_like(x, memory_format=_PACKED), gains)


def _has_kernel(shape: kernel.Recursion, x: Tensor) -> bool:
    on_host = x.device.type == "cpu" and not exporting_to_onnx()
    return on_host and shape.compiles and reason(x.element_size()) is None


def _run_kernel(
    shape: kernel.Recursion,
    x: Tensor,
    taps: Tensor,
    h: Tensor,
    *gains: Tensor,
    way: str = "propagate",
) -> Tensor:
    arrays = [t.resolve_neg().contiguous() for t in (x, taps, h, *gains)]
    places = [t.data_ptr() for t in arrays] + [0] * (not gains)
    shapes, workers = [t.shape for t in (x, taps, *gains)], torch.get_num_threads()
    kernel.run(shape, x.element_size(), places, *shapes, workers=workers, keeps=arrays, way=way)
    return h


def _products(family: Propagation, x_bar: Tensor, h: Tensor, taps: Tensor) -> Tensor:
    """Return the gradient by taps, in one pass if every image has its own taps."""
    own = taps.shape[:2] == h.shape[:2] and bare(x_bar, h, unrecorded=True)
    if not own or not _has_kernel(family.compiled, h):
        return propagation.gram(family, x_bar, h, taps)
    if family.turned:
        family, x_bar, h = family.transpose(), h, x_bar
    found = torch.empty_like(taps, memory_format=_PACKED)
    _run_kernel(family.compiled, x_bar, found, h, way="products")
    return found


def _propagate_vjp(family: Propagation, saved: Any, bar: Tensor, wanted: Any) -> Cotangents:
    taps, h = saved
    x_bar = propagated(family.transpose(), taps, bar)
    taps_bar = _products(family, x_bar, h, taps) if wanted[0] else None
    return taps_bar, x_bar if wanted[1] else None


def _propagate_jvp(family: Propagation, saved: Any, *dots: Tensor | None) -> Tensor | None:
    return propagation.tangent(propagated, family, *saved, *dots)


PROPAGATE = Rule(
    "propagate",
    _propagate,
    lambda _, taps, x: x.shape,
    _propagate_vjp,
    _propagate_jvp,
    keeps_result=True,
)
propagated = functools.partial(run, PROPAGATE)  # of a `Propagation`, its taps and x
