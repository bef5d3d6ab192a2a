"""The custom operator of PyTorch that traced code has for every kernel: one node in a graph a call.

torch.compile and torch.export do not trace into the operator, and unroll no solve. The switches of
`invconv_torch.precision` are set when the graph runs, not when it is traced. Families of matrices
are passed as text, a type that an operator may take.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from invconv.families.family import Family

Cotangents: TypeAlias = tuple[Tensor | None, ...]
Settings: TypeAlias = Any  # a family, alone or with factors, counts of terms, or a grid
_ALONE = ("apply", "gram", "matmul", "filter", "filter_backwards")
_ON_GRID = ("spectral_log_det", "spectral_log_det_vjp")
MOST = 5  # tensors of an operation at most: PyTorch's tracers need a fixed number of arguments
_NO_GRID = (0,)  # AOTInductor would make None of an empty list
_OF_IMAGES = ("apply", "solve")  # (w, x): vmap over the images alone is a larger batch


@dataclass(frozen=True)
class Rule:
    """An operation on tensors, and its derivatives; settings are no tensors."""

    rules: ClassVar[dict[str, Rule]] = {}

    name: str
    run: Callable[..., Tensor]  # (settings, *tensors) to the result, in plain PyTorch
    shape: Callable[..., Sequence[int]]  # (family, *tensors) to the shape of the result
    keeps_result: bool  # whether the derivatives need the result instead of the last tensor
    vjp: Callable[[Settings, Any, Tensor, Any], Cotangents]  # of saved, cotangent, wanted
    jvp: Callable[..., Tensor | None]  # (settings, saved, *tangents) to the tangent of the result

    def __post_init__(self) -> None:
        self.rules[self.name] = self


def as_node(rule: Rule, settings: Settings, *tensors: Tensor) -> Tensor:
    """Return the result of an operation as one node of a graph."""
    family, more = (settings, None) if rule.name in _ALONE else settings
    grid = more if rule.name in _ON_GRID else _NO_GRID
    text = "" if family is None else family.text
    result: Tensor = torch.ops.invconv.run(rule.name, text, grid, *tensors)
    return result


@functools.lru_cache(maxsize=256)
def family_of(text: str) -> Any:
    """Return the family with this ``text``, such as "TriangleOfRows(lower=True)", None of ""."""
    if not text:
        return None
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    if call.func.id not in Family.named:
        raise TypeError(f"{call.func.id}: expected a known family; first import its module")
    try:
        settings = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError:
        expected = "expected a family whose settings are words, numbers or tuples of them"
        raise TypeError(f"{expected}, which a graph can hold, got {text:.200}") from None
    return Family.named[call.func.id](**settings)


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
    shape = Rule.rules[operation].shape
    given = [t for t in tensors if t is not None]
    return given[0].new_empty(shape(family_of(family), *given))


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
