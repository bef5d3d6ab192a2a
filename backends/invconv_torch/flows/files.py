"""Loading layers and flows of PyTorch; how `invconv.save` takes a flow apart."""

import os
from itertools import zip_longest
from typing import Any

import torch

import invconv as ic
from invconv.files.flow_files import FLOWS, Flows, StoredFlow
from invconv.files.saving import load_as
from invconv_torch.flows.glow import Glow
from invconv_torch.module import InvertibleModule
from invconv_torch.native.host import require_whole

_PREFIX, _FLAG = "layers.", ".initialized"  # of a Glow's names in PyTorch; of actnorms' buffers
_WHOLE = (
    "load get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), of "
    "torch.distributed.checkpoint.state_dict, into a Glow that is not shared out, and save that"
)


def _contents(flow: Glow) -> StoredFlow:
    """Return the contents of a flow's file, or raise if no file describes the flow."""
    state = flow.state_dict()
    require_whole("model", state.values(), _WHOLE)
    _require_own_layers(flow)
    arrays = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if not name.endswith(_FLAG)
    }
    return StoredFlow(flow.architecture, arrays, flow.initialized)


def _require_own_layers(flow: Glow) -> None:
    """Raise if a layer differs from the architecture, which is all that a file describes."""
    if flow.architecture.mixing is None:  # the writer refuses it
        return
    with torch.random.fork_rng(devices=[]):
        own = Glow(**flow.architecture.to_dict(), device="meta")
    lists = [[f"{name}: {layer}" for name, layer in one.layers.items()] for one in (own, flow)]
    for expected, got in zip_longest(*lists, fillvalue="no layer"):
        if expected != got:
            raise ValueError(
                f"model: cannot be saved, since no file describes it: expected {expected}, got "
                f"{got}; make a Glow with the settings that you want"
            )


def _build(stored: StoredFlow, like: torch.Tensor) -> Glow:
    settings = stored.architecture.to_dict()
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        flow = Glow(**settings, device=like.device, dtype=like.dtype)
    own = flow.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, values in stored.arrays.items():
            own[_PREFIX + name].copy_(values)
        for name, tensor in own.items():
            if name.endswith(_FLAG):
                tensor.fill_(stored.initialized)
    return flow


FLOWS["torch"] = Flows(Glow, _contents, _build)


def load(
    path: str | os.PathLike[str], *, device: Any = None, dtype: Any = None
) -> Glow | InvertibleModule:
    """Read a flow or a layer that `invconv.save` wrote, in whatever library.

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

    model = load_as(path, like_of)
    return InvertibleModule(model) if isinstance(model, ic.InvertibleConv) else model
