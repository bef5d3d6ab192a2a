"""Saving and loading layers and flows of PyTorch."""

from __future__ import annotations

import os
from typing import Any

import torch

import invconv as ic
from invconv.files.flow_files import StoredFlow, read, write_flow
from invconv_torch.flows.glow import Glow
from invconv_torch.module import InvertibleModule

_PREFIX, _FLAG = "layers.", ".initialized"  # of a Glow's names in PyTorch; of actnorms' buffers


def save(module: Glow | InvertibleModule, path: str | os.PathLike[str]) -> None:
    """Write a flow or a layer to a file, whole or not at all; `invconv_jax.load` reads it too.

    Parameters
    ----------
    module : Glow or InvertibleModule
        A flow with a named mixing, or a layer of this package.
    path : str or path-like
        By custom ``*.safetensors``.

    Raises
    ------
    TypeError, ValueError, OSError
        As `invconv.save`; ValueError, too, if the flow's mixing is a function, or a layer was
        replaced.

    Examples
    --------
    >>> import tempfile, torch, invconv_torch
    >>> from invconv_torch.flows import Glow
    >>> flow = Glow((3, 8, 8), levels=1, depth=2, width=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_torch.save(flow, f"{folder}/flow.safetensors")
    ...     same = invconv_torch.load(f"{folder}/flow.safetensors")
    >>> x = torch.rand(2, 3, 8, 8)
    >>> torch.equal(same.log_prob(x), flow.log_prob(x))
    True
    """
    if isinstance(module, InvertibleModule):
        ic.save(module.operator(), path)
        return
    if not isinstance(module, Glow):
        raise TypeError(
            f"module: expected a Glow or a layer of invconv_torch, got {type(module).__name__}; "
            "of several layers save invconv.Chain([layer.operator() for layer in layers])"
        )
    _require_own_layers(module)
    state = module.state_dict()
    arrays = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if not name.endswith(_FLAG)
    }
    write_flow(path, module.architecture, arrays, module.initialized)


def _require_own_layers(flow: Glow) -> None:
    """Raise if a layer differs from the architecture, which is all that a file describes."""
    if flow.architecture.mixing is None:  # the writer refuses it
        return
    with torch.random.fork_rng(devices=[]):
        own = dict(Glow(**flow.architecture.to_dict(), device="meta").layers.items())
    for name, layer in flow.layers.items():
        expected = own.get(name, "no layer of that name")
        if repr(layer) != repr(expected):
            raise ValueError(
                f"flow: cannot be saved: {name} was replaced, which no file describes: expected "
                f"{expected}, got {layer}; make a Glow with the settings that you want"
            )


def load(
    path: str | os.PathLike[str], *, device: Any = None, dtype: Any = None
) -> Glow | InvertibleModule:
    """Read a flow or a layer that `save`, `invconv.save` or `invconv_jax.save` wrote.

    Everything is checked before it is used, and no code is run from a file.

    Parameters
    ----------
    path : str or path-like
    device : optional
        PyTorch's default unless given.
    dtype : torch.dtype, optional
        The dtype of the file unless given.

    Returns
    -------
    Glow or InvertibleModule
        In train mode, as new modules are.

    Raises
    ------
    InvalidFileError, ValueError, OSError
        As `invconv.load`.

    Examples
    --------
    >>> import tempfile, torch, invconv_torch
    >>> layer = invconv_torch.EmergingConv2d(3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_torch.save(layer, f"{folder}/layer.safetensors")
    ...     same = invconv_torch.load(f"{folder}/layer.safetensors")
    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(same(x)[0], layer(x)[0])
    True
    """

    def like_of(name: str) -> torch.Tensor:
        kind = getattr(torch, name) if dtype is None else dtype
        return torch.empty(0, device=device, dtype=kind)

    stored = read(path, like_of)
    if not isinstance(stored, StoredFlow):
        return InvertibleModule(stored)
    settings = stored.architecture.to_dict()
    kind = next(array.dtype for array in stored.arrays.values() if array.is_floating_point())
    with torch.random.fork_rng(devices=[]):
        flow = Glow(**settings, device=device, dtype=kind)
    own = flow.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, values in stored.arrays.items():
            own[_PREFIX + name].copy_(values)
        for name, tensor in own.items():
            if name.endswith(_FLAG):
                tensor.fill_(stored.initialized)
    return flow
