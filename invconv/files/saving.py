"""`invconv.save` and `invconv.load`: operators, layers and flows of every library."""

import os
from collections.abc import Callable
from typing import Any

from invconv.arrays.namespaces import Array
from invconv.arrays.validation import require_real
from invconv.files import flow_files, operator_files
from invconv.files.container import reading
from invconv.operators.base.factors import as_operator


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write an operator, a layer or a flow to a file, whole or not at all.

    The arrays of any library are copied to host memory and keep their dtype (float64, float32,
    float16, bfloat16; a permutation is written as int64). The same operator gives the same bytes
    in every library. A layer of PyTorch is saved as its operator. For an operator that `bounded`
    made, and for a layer with ``max_gain``, the operator before the bound and the bound are
    written. `invconv_torch.save` and `invconv_jax.save` are this function.

    Parameters
    ----------
    model : InvertibleConv, layer or chain of invconv_torch, or Glow
        With finite arrays.
    path : str or path-like
        By custom ``*.safetensors``. An existing file is replaced after the new one has been read
        back and is on disk; it stays as it was if anything goes wrong.

    Raises
    ------
    TypeError
        If ``model`` is none of these, or its class has been defined again since.
    ValueError
        If an array holds NaN or inf, there are too many or too deeply nested operators, a flow's
        mixing is a function, or its layers were changed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, pathlib.Path(folder, "conv.safetensors"))
    ...     same = load(pathlib.Path(folder, "conv.safetensors"))
    >>> x = np.ones((3, 8, 8))
    >>> bool(np.all(same.forward(x) == conv.forward(x)))
    True
    """
    flow = flow_files.contents_of(model)
    if flow is not None:
        flow_files.write_flow(path, flow)
    else:
        operator_files.write_operator(path, as_operator("model", model))


def load(path: str | os.PathLike[str], like: Array | None = None) -> Any:
    """Read an operator, or a flow of the library of ``like``, that `save` wrote.

    Everything is checked before it is used: a checksum (files of 0.2.0 have none), the sizes
    against the length of the file, the description against the classes, the numbers for NaN and
    inf. No code is run from a file. The checksum detects accidental damage; it does not detect
    changes on purpose, since anyone can compute it anew.

    `invconv_torch.load` returns a layer instead of an operator. It and `invconv_jax.load` take
    ``dtype=`` instead of ``like``.

    Parameters
    ----------
    path : str or path-like
    like : array, optional
        An array of the library, dtype and device to use, as in ``conv.asarrays(like)``. Unless
        given, operators are of NumPy arrays of the dtype in the file. NumPy has no bfloat16 and no
        flows, so such files need ``like``.

    Raises
    ------
    InvalidFileError
        If `save` did not write the file, or it is damaged.
    TypeError
        If the file holds bfloat16 or a flow, and ``like`` is not given or of NumPy.
    ValueError
        If a number in the file is beyond the range of ``like``'s dtype.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    Warns
    -----
    UserWarning
        If a number in the file is too small for ``like``'s dtype, and becomes zero.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, f"{folder}/conv.safetensors")
    ...     same = load(f"{folder}/conv.safetensors", like=np.empty(0, "float32"))
    >>> same.first.kernel.dtype
    dtype('float32')
    """
    return load_as(path, lambda dtype: like, "like")


def load_as(
    path: str | os.PathLike[str], like_of: Callable[[str], Array | None], argument: str = "dtype"
) -> Any:
    """Read an operator or a flow from a file, as `load` does.

    ``like_of`` returns, for the dtype of the file ("float32"), `load`'s ``like``; ``argument`` is
    the name of the argument by which the user chose it, for messages.
    """
    with reading(path) as stored:
        like = like_of(stored.dtype)
        if like is not None:
            require_real(argument, like)
        if stored.document.get("schema") == flow_files.FLOW_SCHEMA:
            return flow_files.in_library(flow_files.flow_of(stored), like, argument, stored.name)
        if like is None and stored.dtype == "bfloat16":
            raise TypeError(
                f"like: {stored.name} holds bfloat16, which NumPy has not; pass an array of torch "
                f"or JAX, or a float32 one, which holds every bfloat16 number exactly"
            )
        conv = operator_files.operator_of(stored)
    return conv if like is None else operator_files.in_library(conv, like, argument)
