"""PyTorch's private parts that this package and the core use, looked up once.

Importing this module refuses a version that lacks a part. `VERSIONS` has the oldest version, as in
pyproject.toml.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from invconv.arrays.errors import Versions

F = TypeVar("F", bound=Callable[[], object])

VERSIONS = Versions("PyTorch", "torch", oldest="2.9", newest="2.13.0")
VERSIONS.require(torch.__version__)

try:
    from torch._higher_order_ops.scan import scan_op as scan_op
    from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
    from torch._subclasses.fake_tensor import MetaConverter
    from torch.utils import _python_dispatch

    get_fp32_precision = torch._C._get_fp32_precision_getter  # a property takes six times as long
    set_fp32_precision = torch._C._set_fp32_precision_setter
    is_tracing = torch._C._is_tracing
    open_modes = torch._C._len_torch_dispatch_stack
    get_interpreter_stack = torch._C._functorch.get_interpreter_stack
    is_legacy_batchedtensor = torch._C._functorch.is_legacy_batchedtensor
    enter_legacy_vmap = torch._C._vmapmode_increment_nesting
    leave_legacy_vmap = torch._C._vmapmode_decrement_nesting
    add_batch_dim, remove_batch_dim = torch._add_batch_dim, torch._remove_batch_dim
    saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks
    without_modes = _python_dispatch._disable_current_modes

    # parts that the functions below look up when they are used
    _converter = MetaConverter()
    _parts = [_converter.tensor_memo, _converter.describer.lookup_tensor, torch.empty(0)._version]
    _parts += [forward_ad._current_level]
except (ImportError, AttributeError) as error:
    raise VERSIONS.refusal(torch.__version__, error) from error


# the level of forward-mode differentiation, -1 if none is open; no Python function, to save a call
forward_level = partial(attrgetter("_current_level"), forward_ad)


def version_of(t: Tensor) -> tuple[int, int]:
    """Return the address of a tensor and its version, 0 for an inference tensor."""
    return t.data_ptr(), edits_of(t)


def edits_of(t: Tensor) -> int:
    """Return the version of a tensor, which in-place edits increment; 0 for an inference tensor."""
    return 0 if t.is_inference() else t._version


def constant_in_graphs(function: F) -> F:
    """Do as `torch.compiler.assume_constant_result`, which takes 2 seconds to import Dynamo."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


def behind(fake: Any) -> Tensor | None:
    """Return the real tensor behind a fake one, which its mode remembers, or None."""
    converter = fake.fake_mode.fake_tensor_converter.meta_converter
    for tensor, number in converter.describer.lookup_tensor.items():
        if converter.tensor_memo.get(number) is fake:
            return tensor
    return None
