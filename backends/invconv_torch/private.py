"""PyTorch's private parts that this package and the core use, looked up once.

Importing this module refuses a version that lacks a part. `VERSIONS` has the oldest version, as in
pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import torch
from torch.autograd import Function, forward_ad

from invconv.arrays.versions import Versions

Tensor: TypeAlias = torch.Tensor
F = TypeVar("F", bound=Callable[[], object])

VERSIONS = Versions("PyTorch", "torch", oldest="2.9", newest="2.13.0")
VERSIONS.require(torch.__version__)

try:
    from torch._C import _get_fp32_precision_getter as fp32_precision
    from torch._C import _is_tracing as is_tracing
    from torch._C import _len_torch_dispatch_stack as open_modes
    from torch._C._functorch import TransformType as Transform
    from torch._C._functorch import (
        get_interpreter_stack,
        is_functorch_wrapped_tensor,
        peek_interpreter_stack,
    )
    from torch._higher_order_ops.scan import scan_op
    from torch._subclasses.fake_tensor import FakeTensor, MetaConverter
    from torch.utils._python_dispatch import _disable_current_modes as without_modes

    # parts that the functions below look up when they are used
    _converter = MetaConverter()
    _parts = [_converter.tensor_memo, _converter.describer.lookup_tensor, torch.empty(0)._version]
    _parts += [forward_ad._current_level, super(Function, Function).apply]
except (ImportError, AttributeError) as error:
    raise VERSIONS.refusal(torch.__version__, error) from error

__all__ = [
    "FakeTensor",
    "Node",
    "Transform",
    "behind",
    "constant_in_graphs",
    "forward_level",
    "fp32_precision",
    "get_interpreter_stack",
    "is_functorch_wrapped_tensor",
    "is_tracing",
    "open_modes",
    "peek_interpreter_stack",
    "scan_op",
    "version",
    "without_modes",
]


class Node(Function):  # type: ignore[misc]
    """A Function of tensors that are not wrapped by a transform of `torch.func`."""

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """Record the call, without the search for such wrappers."""
        return super(Function, cls).apply(*arguments)


# the level of forward-mode differentiation, -1 if none is open; no Python function, to save a call
forward_level = partial(attrgetter("_current_level"), forward_ad)


def version(t: Tensor) -> int:
    """Return the number of edits in place of a tensor."""
    return int(t._version)


def constant_in_graphs(function: F) -> F:
    """Do as `torch.compiler.assume_constant_result`, which would import Dynamo for 2 seconds."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


def behind(fake: Any) -> Tensor | None:
    """Return the real tensor of a fake one, from the memory of its mode, or None."""
    converter = fake.fake_mode.fake_tensor_converter.meta_converter
    for tensor, number in converter.describer.lookup_tensor.items():
        if converter.tensor_memo.get(number) is fake:
            return tensor
    return None
