"""Values of parameters, which torch.export hides, and arrays as constants of a graph."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from invconv_torch.private import FakeTensor, behind, without_modes

Tensor: TypeAlias = torch.Tensor


def values_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a parameter in NumPy's float64, though torch.export may show a fake one."""
    real = behind(tensor) if isinstance(tensor, FakeTensor) else tensor
    if real is None:
        raise NotImplementedError(
            "torch.onnx.export of a layer of invconv_torch: expected parameters of the module that "
            "is exported, which are constants in the file, got one that is computed from others "
            "(torch.nn.utils.parametrize, torch.func.functional_call, or a program of "
            "torch.export.export); make it a parameter first, and export the module itself"
        )
    with without_modes():
        host = real.detach().cpu()
        values: np.ndarray[Any, Any] = (host.double() if real.is_floating_point() else host).numpy()
    return values


def constant(values: Any, like: Tensor) -> Tensor:
    """Return an array as a constant of the graph; real numbers in the dtype of a tensor."""
    array = np.ascontiguousarray(values)
    dtype = like.dtype if array.dtype.kind == "f" else None
    with without_modes():
        tensor = torch.tensor(array, dtype=dtype, device=like.device)
    return tensor.clone()  # a node of the graph, as a scan requires
