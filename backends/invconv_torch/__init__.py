"""PyTorch adapter of invconv: layers, native primitives, and exact derivatives of every order.

>>> import torch
>>> from invconv_torch import EmergingConv2d
>>> layer = EmergingConv2d(12, kernel_size=3, mixing="qr")
>>> z, log_det = layer(torch.zeros(5, 12, 16, 16))
>>> x, inverse_log_det = layer.inverse(z)
>>> z.shape, log_det.shape
(torch.Size([5, 12, 16, 16]), torch.Size([5]))
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("invconv_torch needs PyTorch: pip install 'invconv[torch]'") from error

from invconv_torch import private as _private  # noqa: F401  # refuses versions, before all else

# isort: split
from invconv.arrays.namespaces import bits, ops_of
from invconv.files.saving import save
from invconv_torch import audio, flows, interop
from invconv_torch.chain import Chain, ReversibleChain
from invconv_torch.exporting.decompositions import decompositions
from invconv_torch.flows.glow import load
from invconv_torch.guard import InverseGuard
from invconv_torch.layers import (
    AutoregressiveConv1d,
    AutoregressiveConv2d,
    AutoregressiveConv3d,
    EmergingConv1d,
    EmergingConv2d,
    EmergingConv3d,
    ExponentialConv1d,
    ExponentialConv2d,
    ExponentialConv3d,
    PeriodicConv1d,
    PeriodicConv2d,
    PeriodicConv3d,
    SymmetricConv1d,
    SymmetricConv2d,
    SymmetricConv3d,
)
from invconv_torch.module import InvertibleModule
from invconv_torch.pointwise_layers import ActNorm, Conv1x1, Squeeze

# the core looks these up once, and has to do it before torch.compile traces
for _tensor in (_torch.empty(0), _torch.nn.Parameter(_torch.empty(0))):
    ops_of(_tensor)
for _dtype in (_torch.float16, _torch.bfloat16, _torch.float32, _torch.float64):
    bits(_dtype, _tensor)

__all__ = [
    "ActNorm",
    "AutoregressiveConv1d",
    "AutoregressiveConv2d",
    "AutoregressiveConv3d",
    "Chain",
    "Conv1x1",
    "EmergingConv1d",
    "EmergingConv2d",
    "EmergingConv3d",
    "ExponentialConv1d",
    "ExponentialConv2d",
    "ExponentialConv3d",
    "InverseGuard",
    "InvertibleModule",
    "PeriodicConv1d",
    "PeriodicConv2d",
    "PeriodicConv3d",
    "ReversibleChain",
    "Squeeze",
    "SymmetricConv1d",
    "SymmetricConv2d",
    "SymmetricConv3d",
    "audio",
    "decompositions",
    "flows",
    "interop",
    "load",
    "save",
]
