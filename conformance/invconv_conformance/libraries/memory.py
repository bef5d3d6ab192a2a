"""Ways to hold the same numbers in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, namespace
from invconv_conformance.libraries.table import Target

Floats = np.ndarray[Any, Any]
Hold = Callable[[Floats], Array]
REPEATED = "one sample in place of all"  # the way that changes the numbers


def memories(target: Target, dtype: str) -> dict[str, Hold]:
    """Return ways to hold numbers, none where the library has no views."""
    if not target.library.views:
        return {}

    def put(x: Floats) -> Array:
        return target.asarray(np.array(x, order="C"), dtype)

    def permuted(x: Floats, order: tuple[int, ...]) -> Array:
        """Return x, laid out as if its axes were in an order."""
        array = put(np.transpose(x, order))
        return namespace(array).permute_dims(array, tuple(np.argsort(order)))

    def repeated(x: Floats) -> Array:
        one = put(x[:1])
        return namespace(one).broadcast_to(one, x.shape)

    def channels_last(x: Floats) -> Array:
        order = (0, *range(2, x.ndim), 1) if x.ndim > 2 else range(x.ndim)
        return permuted(x, tuple(order))

    ways: dict[str, Hold] = {
        "Fortran's order": lambda x: permuted(x, tuple(range(x.ndim))[::-1]),
        "channels last": channels_last,
        "every other number": lambda x: put(np.stack([x, x + 1], -1))[..., 0],
        REPEATED: repeated,
    }
    if target.library.name == "torch":
        ways["signs that are to be turned"] = lambda x: put(-x)._neg_view()  # as z.conj().imag
    if target.library.name == "numpy":
        swapped = np.dtype(dtype).newbyteorder()
        ways |= {
            "read-only memory": lambda x: np.frombuffer(x.astype(dtype).tobytes(), dtype).reshape(
                x.shape
            ),
            "a foreign byte order": lambda x: x.astype(swapped),
            "backwards": lambda x: np.flip(np.flip(x).astype(dtype)),
            "odd addresses": lambda x: _unaligned(x.astype(dtype)),
        }
    return ways


def _unaligned(x: Floats) -> Floats:
    held = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    held[...] = x
    return held
