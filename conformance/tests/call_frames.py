"""XLA's calling convention by hand: see `invconv.kernels.cpu.compiler.frame`."""

import ctypes
from collections.abc import Sequence
from typing import Any

UPPER = 7 << 32  # of a word whose number has 32 bits


class Frames:
    """Call frames, and the records that they point to, which are kept."""

    def __init__(self) -> None:
        self.kept = list[Any]()

    def record(self, words: dict[int, int]) -> int:
        """Return the address of words of 64 bits."""
        self.kept.append((ctypes.c_int64 * 24)(*(words.get(i, 0) for i in range(24))))
        return ctypes.addressof(self.kept[-1])

    def run(self, code: Any, words: dict[int, int]) -> int | None:
        handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(code.address)
        error: int | None = handler(self.record(words))
        return error

    def call(
        self, code: Any, given: Any, made: Any, attributes: Sequence[Any], **words: int
    ) -> int | None:
        """Call a handler with arrays and attributes; ``words`` are "api", "context", "stage"."""
        arrays = (
            [self.record({3: a.ctypes.data, 4: a.ndim}) for a in some] for some in (given, made)
        )
        numbers = [self.record({1: a.size, 2: a.ctypes.data}) for a in attributes]
        lists = (self.record(dict(enumerate(some))) for some in (*arrays, numbers))
        places = {2: words.get("api", 0), 3: words.get("context", 0)}
        places[4] = words.get("stage", 3) | UPPER
        return self.run(code, dict(zip((9, 14, 20), lists, strict=True)) | places)
