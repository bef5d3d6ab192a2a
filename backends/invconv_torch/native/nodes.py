"""Nodes of autograd and of graphs: one operation on tensors, and an operator's whole call.

An operation is opaque to autograd, torch.func and compilers: a `Rule` says how it runs on memory
(`native.kernels`) and has its two derivatives (`invconv.kernels.maps`). `run` chooses between three
ways. On plain tensors an operation runs directly. In traced code, under a mode, and for stand-ins
it is a registered operator, `invconv::run`, which compilers do not trace into: they unroll no
solve, and the switches of `invconv_torch.precision` are set when it runs. It takes a family as
text. Where derivatives are wanted a Function records the operation.

An operator's call is one node, with the core's derivative, if nothing but autograd records it. Step
by step it would be a dozen nodes or more, and each takes as long as a small convolution.
"""

import ast
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from invconv.families.family import Family
from invconv.families.path import Memo, State
from invconv.kernels import maps, primitives
from invconv.kernels.frequencies.spectrum import SpectralProduct
from invconv.kernels.primitives import Plan
from invconv.operators.base import operator as core
from invconv_torch.native import kernels
from invconv_torch.native.host import (
    bare,
    exporting_to_onnx,
    laid_out,
    owned,
    refuse_compiled_transforms,
    refuse_nested_forward_mode,
)
from invconv_torch.native.kernels import Factored, FactoredSpectral, Settings
from invconv_torch.private import (
    add_batch_dim,
    enter_legacy_vmap,
    forward_level,
    get_interpreter_stack,
    is_legacy_batchedtensor,
    leave_legacy_vmap,
    open_modes,
    remove_batch_dim,
    saved_tensors_hooks,
)

Cotangents: TypeAlias = tuple[Tensor | None, ...]
_ALONE = ["apply", "gram", "matmul", "log_abs_det", "filter", "filter_back", "lagged", "propagate"]
_ON_GRID = ("spectral_log_det", "spectral_log_det_vjp")
MOST = 5  # the most tensors of an operation: PyTorch's tracers need a fixed number of arguments
_OF_IMAGES = ("apply", "solve")  # (w, x): vmap over the images alone is a larger batch


@dataclass(frozen=True)
class Rule:
    """An operation on tensors, and its derivatives; settings are no tensors."""

    rules: ClassVar[dict[str, "Rule"]] = {}

    name: str
    run: Callable[..., Tensor]  # (settings, *tensors) to the result, in plain PyTorch
    shape: Callable[..., Sequence[int]]  # (family, *tensors) to the shape of the result
    vjp: Callable[[Settings, Any, Tensor, Any], Cotangents]  # (settings, saved, cotangent, wanted)
    jvp: Callable[..., Tensor | None]  # (settings, saved, *tangents) to the tangent of the result
    keeps_result: bool = False  # whether the derivatives need the result, not the last tensor

    def __post_init__(self) -> None:
        self.rules[self.name] = self


def family_of(text: str) -> Any:
    """Return the family with this ``text``, such as "TriangleOfRows(lower=True)"; None for ""."""
    if not text:
        return None
    name, _, settings = text.partition("(")
    known: Any = Family.named.get(name)
    if known is None:
        raise TypeError(f"{name}: expected a known family; first import its module")
    return known.made.get(text) or _made(known, settings)


@functools.lru_cache(maxsize=256)
def _made(cls: Any, text: str) -> Any:
    """Return a family of a graph that another process wrote."""
    call = ast.parse(f"_({text}", mode="eval").body
    assert isinstance(call, ast.Call)
    try:
        settings = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError:
        expected = "expected a family whose settings are words, numbers or tuples of them"
        raise TypeError(
            f"{expected}, which a graph can hold, got {cls.__name__}({text:.200}"
        ) from None
    return cls(**settings)


@torch.library.custom_op("invconv::run", mutates_args=())  # type: ignore[untyped-decorator]
def _run(
    operation: str,
    family: str,
    grid: Sequence[int],
    a: Tensor,
    b: Tensor | None = None,
    c: Tensor | None = None,
    d: Tensor | None = None,
    e: Tensor | None = None,
) -> Tensor:
    """Run the `Rule` of a name; the result shares no memory with an argument."""
    rule, settings = Rule.rules[operation], _settings(operation, family, grid)
    # no dispatcher is left between a subclass of Tensor and its memory
    tensors = [t.as_subclass(Tensor) for t in (a, b, c, d, e) if t is not None]
    result = rule.run(settings, *tensors).contiguous()
    shared = any(result.data_ptr() == tensor.data_ptr() for tensor in tensors)
    return result.clone() if shared else result


def _settings(operation: str, family: str, grid: Sequence[int]) -> Settings:
    known = family_of(family)
    return known if operation in _ALONE else (known, tuple(grid) if operation in _ON_GRID else None)


@_run.register_fake  # type: ignore[untyped-decorator]
def _(operation: str, family: str, grid: Sequence[int], *tensors: Tensor | None) -> Tensor:
    given = [t for t in tensors if t is not None]
    shape = Rule.rules[operation].shape(family_of(family), *given)
    kind = given[0].dtype
    return given[0].new_empty(shape, dtype=kind.to_real() if operation == "log_abs_det" else kind)


def kept(rule: Rule, tensors: Sequence[Tensor | None], result: Tensor) -> list[Tensor]:
    """Return the tensors that the derivatives of an operation need."""
    given = [t for t in tensors if t is not None]
    return [*given[:-1], result] if rule.keeps_result else given


def pulled_back(ctx: Any, bar: Tensor, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return the cotangents of `MOST` tensors."""
    saved = ctx.saved_tensors
    bars = ctx.rule.vjp(ctx.settings, saved, bar, wanted[: len(saved)])
    return *bars, *[None] * (MOST - len(saved))


def _keep(ctx: Any, inputs: Any, output: Tensor) -> None:
    operation, family, grid, *tensors = inputs
    ctx.rule, ctx.settings = Rule.rules[operation], _settings(operation, family, grid)
    ctx.save_for_backward(*kept(ctx.rule, tensors, output))


def _pull_back(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
    return None, None, None, *pulled_back(ctx, bar, ctx.needs_input_grad[3:])


_run.register_autograd(_pull_back, setup_context=_keep)


@_run.register_vmap  # type: ignore[untyped-decorator]
def _(
    info: Any, in_dims: Any, operation: str, family: str, grid: Any, *tensors: Any
) -> tuple[Tensor, int]:
    """Join mapped images to one batch if nothing else is mapped; else run once for each element."""
    axes = in_dims[3:]
    if operation in _OF_IMAGES and axes[0] is None and "TriangleOfRows" not in family:
        images = tensors[1].movedim(axes[1], 0)
        joined = _run(operation, family, grid, tensors[0], images.flatten(0, 1))
        return joined.unflatten(0, images.shape[:2]), 0
    each = [
        [t if axis is None else t.select(axis, n) for t, axis in zip(tensors, axes, strict=True)]
        for n in range(info.batch_size)
    ]
    return torch.stack([_run(operation, family, grid, *one) for one in each]), 0


@dataclass(frozen=True)
class Operation:
    """A rule with its settings: one leaf for torch.func; a tuple would be two."""

    rule: Rule
    settings: Settings


class _Step(Function):  # type: ignore[misc]
    """A recorded operation, for torch.compile: always on `MOST` tensors, the last ones None."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operation: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Tensor:
        given = [t for t in (a, b, c, d, e) if t is not None]
        return _leaf(operation.rule, operation.settings, *given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.rule, ctx.settings = inputs[0].rule, inputs[0].settings
        ctx.save_for_backward(*kept(ctx.rule, inputs[1:], output))

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
        return None, *pulled_back(ctx, bar, ctx.needs_input_grad[1:])


class _Eager(_Step):
    """The same with forward mode, which torch.compile cannot trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _Step.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*kept(ctx.rule, inputs[1:], output))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor | None:
        saved = ctx.saved_tensors
        return ctx.rule.jvp(ctx.settings, saved, *tangents[: len(saved)])


def _leaf(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Run an operation: on memory, or through PyTorch's dispatcher where tensors are stand-ins."""
    if bare(*tensors):
        return owned(rule.run(settings, *tensors))
    if exporting_to_onnx():  # ONNX knows none of our operators
        return rule.run(settings, *tensors)
    family, more = (settings, None) if rule.name in _ALONE else settings
    grid = more if rule.name in _ON_GRID else (0,)  # AOTInductor would make None of an empty list
    text = "" if family is None else family.text
    return torch.ops.invconv.run(rule.name, text, grid, *tensors)


def run(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Run an operation, and record it for derivatives if it is observed."""
    if bare(*tensors, unrecorded=True):
        return rule.run(settings, *tensors)
    node: Any = _Eager
    if torch.compiler.is_compiling():
        refuse_compiled_transforms()
        if torch.compiler.is_exporting():  # a strict export would lose a Function's derivative
            return _leaf(rule, settings, *tensors)
        # only of views does the compiler know which of them `torch.func.grad` differentiates by
        node, tensors = _Step, tuple(tensor.view_as(tensor) for tensor in tensors)
    elif get_interpreter_stack() is None and not (
        forward_level() >= 0 or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
    ):
        return _leaf(rule, settings, *tensors)
    else:
        refuse_nested_forward_mode()
    blank = [None] * (MOST - len(tensors))
    return node.apply(Operation(rule, settings), *tensors, *blank)


def _solve_vjp(settings: Settings, saved: Any, x_bar: Tensor, wanted: Any) -> Cotangents:
    (family, factored), (w, x) = settings, saved
    transposed = None if factored is None else factored.transpose()
    turned = family.transpose(), transposed
    solve_transposed = partial(run, SOLVE, turned, family.adjoint(w))
    return maps.solve_vjp(family, solve_transposed, x, x_bar, wanted)


def _solve_jvp(settings: Settings, saved: Any, w_dot: Any, y_dot: Any) -> Tensor | None:
    (family, factored), (w, x) = settings, saved
    again = partial(run, SOLVE, (family, factored), w)
    return maps.solve_jvp(family, again, x, w_dot, y_dot)


APPLY = Rule(
    "apply",
    kernels.apply,
    lambda family, w, x: x.shape,
    lambda family, saved, *more: maps.apply_vjp(family, *saved, *more),
    lambda family, saved, *dots: maps.bilinear_jvp(partial(maps.apply, family), *saved, *dots),
)
GRAM = Rule(
    "gram",
    kernels.gram,
    lambda family, x, y: family.shape_of(x),
    lambda family, saved, *more: maps.gram_vjp(family, *saved, *more),
    lambda family, saved, *dots: maps.bilinear_jvp(partial(maps.gram, family), *saved, *dots),
)
SOLVE = Rule("solve", kernels.solve, lambda family, w, y: y.shape, _solve_vjp, _solve_jvp, True)
MATMUL = Rule(
    "matmul",
    kernels.matmul,
    lambda _, a, b: torch.matmul(a, b).shape,
    lambda _, saved, *more: maps.matmul_vjp(*saved, *more),
    lambda _, saved, *dots: maps.bilinear_jvp(primitives.matmul, *saved, *dots),
)


@dataclass(frozen=True, eq=False)
class RecordedSolver:
    """The map y -> A(w)^-1 y on a grid, differentiable in y and w."""

    family: Family
    weights: Tensor
    factored: Factored | None  # of detached weights; None in traced code: each solve factors

    @property
    def plan(self) -> Plan:
        return Plan("traced") if self.factored is None else self.factored.plan

    def as_numpy(self) -> SpectralProduct | None:
        """Return the spectral product on NumPy arrays, or None if the solve is of another kind."""
        product = self.factored.product if isinstance(self.factored, FactoredSpectral) else None
        return None if product is None else product.as_numpy()

    def __call__(self, y: Tensor) -> Tensor:
        return run(SOLVE, (self.family, self.factored), self.weights, y)


# --- an operator's whole call ------------------------------------------------------------------

Pair: TypeAlias = tuple[Tensor, Tensor]
Backward: TypeAlias = Callable[..., tuple[Any, ...]]


def one_by_one(backward: Backward) -> Backward:
    """Return a backward for batches of cotangents that calls ``backward`` with one at a time."""

    @functools.wraps(backward)
    def each(ctx: Any, *bars: Any) -> tuple[Any, ...]:
        for bar in bars:  # a generator would cost a call for each
            if bar is not None and is_legacy_batchedtensor(bar):
                break
        else:
            return backward(ctx, *bars)
        return _by_levels(functools.partial(each, ctx), bars)

    return each


def _by_levels(backward: Backward, bars: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pull back the cotangents of the level of vmap that is open, and of lower levels inside it."""
    level = leave_legacy_vmap() + 1
    try:
        rows = [None if bar is None else _rows(bar, level) for bar in bars]
        count = max((len(bar) for bar in rows if bar is not None), default=0)
        if not count:
            return _by_levels(backward, bars)
        pulled = [
            backward(*(bar if r is None else r[n] for bar, r in zip(bars, rows, strict=True)))
            for n in range(count)
        ]
    finally:
        enter_legacy_vmap()
    return tuple(
        None if parts[0] is None else add_batch_dim(torch.stack(parts), 0, level)
        for parts in zip(*pulled, strict=True)
    )


def _rows(bar: torch.Tensor, level: int) -> torch.Tensor | None:
    """Return the batch of a level along the first axis, or None if the cotangent has none."""
    one, two = (remove_batch_dim(bar, level, size, 0) for size in (1, 2))
    return one if len(one) == len(two) else None  # a tensor without the axis takes any size


def for_each(x: Tensor, log_det: Tensor) -> Tensor:
    """See `invconv.operators.base.calls.for_each`.

    A tracer with symbolic sizes takes the batch's for that of parameters if they are equal, as
    `make_fx` does; so its graph reads no batch's size, and raises on other grids if it fixed one.
    """
    if torch.compiler.is_compiling() or not open_modes():
        return log_det.expand(x.shape[:1]).clone()
    one = x.select(1, 0).expand(-1, *x.shape[2:])
    while one.ndim > 1:
        one = one.select(1, 0)
    return torch.zeros_like(one, dtype=log_det.dtype) + log_det


def evaluate(x: Tensor, conv: Any) -> Pair:
    """See `invconv.operators.base.operator.evaluate`."""
    tensors = conv._trained()
    if records(x, *tensors):
        return _Forward.apply(conv, x, *tensors)  # type: ignore[no-any-return]
    return core.evaluate.agnostic(x, conv)


def invert(y: Tensor, conv: Any, state: State | None) -> Pair:
    """Return x = K^-1 (y - b) and log|det K^-1| for every sample, for y (B, C, *spatial).

    The state is the factored operator, from detached tensors; if None, the operator is factored.
    """
    tensors = conv._trained()
    if records(y, *tensors):
        return _Inverse.apply((conv, state), y, *tensors)  # type: ignore[no-any-return]
    state = state or conv._factor(tuple(y.shape[2:]))
    return laid_out(state.solve(y), y), for_each(y, -state.log_det)


def records(*tensors: Tensor) -> bool:
    """Tell whether autograd, and nothing else, records operations on these tensors."""
    if not bare() or forward_level() >= 0 or not torch.is_grad_enabled():
        return False
    return any(tensor.requires_grad for tensor in tensors)


class _Forward(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, conv: Any, x: Tensor, *tensors: Tensor) -> Pair:
        y, log_det, (route, kept, memos) = conv._route(x).saving(x)
        y = y.detach() if y._is_view() else y  # as `owned`
        points = [x, *(end if start is None else start for (_, end), (start, _) in pairwise(kept))]
        points.append(y if kept[-1][1] is not None else None)
        ctx.conv, ctx.own, ctx.count = conv, tensors, len(points)
        # images and spectra are saved; the route, small as the parameters, is remade under hooks
        ctx.route = None if saved_tensors_hooks(False) else route
        held = [memo if isinstance(memo, Tensor) else None for memo in memos]
        # autograd raises in backward if a saved tensor was edited meanwhile
        ctx.save_for_backward(*points, *held, *tensors)
        ctx.set_materialize_grads(False)
        if type(log_det) is Tensor and log_det.is_cpu:  # `for_each` in one operation
            return y, log_det.new_full(x.shape[:1], log_det.item())
        return y, for_each(x, log_det)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, y_bar: Tensor | None, log_det_bar: Tensor | None) -> tuple[Any, ...]:
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad
        count = len(saved) - len(needed) + 2
        points, memos = saved[: ctx.count], saved[ctx.count : count]
        x, conv = points[0], _with(ctx, saved[count:])
        if torch.is_grad_enabled():  # for a second derivative: everything runs again, recorded
            memo = conv._route(x).saving(x)[2]
        else:
            route = ctx.route if conv is ctx.conv and ctx.route else conv._route(x)
            memo = Memo(route, list(pairwise(points)), memos)
        y_bar = None if y_bar is None else like(y_bar, x)
        log_det_bar = None if log_det_bar is None else log_det_bar.sum()
        wanted = any(needed[2:]), needed[1]
        gradients, x_bar = conv._pull_back(memo, y_bar, log_det_bar, wanted)
        return None, x_bar if needed[1] else None, *map(gradients.get, conv._parameter_names)


class _Inverse(Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, operator: Any, y: Tensor, *tensors: Tensor) -> Pair:
        conv, state = operator
        ctx.conv, ctx.own = conv, tensors
        state = state or conv._factor(tuple(y.shape[2:]))
        x = owned(laid_out(state.solve(y), y))
        ctx.save_for_backward(y if conv._needs_y else None, x, *tensors)
        ctx.set_materialize_grads(False)
        return x, for_each(y, -state.log_det)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, x_bar: Tensor | None, log_det_bar: Tensor | None) -> tuple[Any, ...]:
        y, x, *tensors = ctx.saved_tensors
        conv = _with(ctx, tensors)
        x_bar = None if x_bar is None else like(x_bar, x)
        log_det_bar = None if log_det_bar is None else -log_det_bar.sum()
        gradients, y_bar = conv._inverse_vjp(y, x, x_bar, log_det_bar)
        return None, y_bar, *map(gradients.get, conv._parameter_names)


def _with(ctx: Any, tensors: Sequence[Tensor]) -> Any:
    """Return a node's operator with its saved tensors: itself, if no hook changed one."""
    same = all(map(operator.is_, ctx.own, tensors))
    return ctx.conv if same else ctx.conv._retrained(iter(tensors))


def like(bar: Tensor, x: Tensor) -> Tensor:
    """Return a cotangent in the layout of x: a sum's cotangent is an expanded number."""
    return bar.contiguous() if x.is_contiguous() else bar
