"""Threads of the process that solve parts of the same work, and sleep while there is none."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from invconv.arrays.validation import positive_int

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_MOST = 64
number = 1  # that the kernel uses on NumPy's arrays: `set_num_threads`
_pool: "ThreadPoolExecutor | None" = None


def set_num_threads(n: int) -> None:
    """Set how many threads the compiled kernel uses on NumPy arrays: 1 unless set.

    It uses 64 at most. For PyTorch's tensors ``torch.set_num_threads`` sets it.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is not an integer, or is less than 1.

    Examples
    --------
    >>> import invconv
    >>> invconv.set_num_threads(1)
    """
    global number
    number = min(positive_int("n", n), _MOST)


def together(work: Callable[[], object], threads: int) -> None:
    """Call ``work`` in this thread and in other threads, and wait until all have returned.

    This thread alone must be able to finish the work: other threads may come late or never. The
    work must own the memory it uses, since other threads may go on for a while after an interrupt.
    """
    others: list[Future[object]] = []
    try:
        for _ in range(min(threads, _MOST) - 1):
            try:
                others.append(_threads().submit(work))
            except RuntimeError as error:  # no thread starts any more: at a limit, or at the end
                _forget()  # the work may wait in the pool
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise
                break
        work()
        for other in others:
            if not other.cancel():  # it has begun
                other.result()
    except BaseException as error:
        _forget()  # an interrupt may have left a lock of the pool taken
        for other in others:
            with suppress(RuntimeError):  # or one that a thread waits for, and so would our end
                other._condition.release()
        interrupt = error.__context__
        if isinstance(error, RuntimeError) and isinstance(interrupt, KeyboardInterrupt):
            raise interrupt from None  # the pool only says that a lock is not taken
        raise


def _threads() -> "ThreadPoolExecutor":
    global _pool
    if _pool is None:
        from concurrent.futures import ThreadPoolExecutor  # importing invconv is the quicker

        _pool = ThreadPoolExecutor(min(_MOST, 2 * (os.cpu_count() or 1)), "invconv")
    return _pool


def _forget() -> None:
    """Forget the pool; the next solve starts another one."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows; the pool's threads stay in the parent
    os.register_at_fork(after_in_child=_forget)
