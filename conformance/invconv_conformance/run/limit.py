"""How long a check may take on a library that nobody adapted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

A_CHECK = 10.0  # seconds; lazy libraries build graphs that grow without end


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in what takes longer than a check may, where the system has alarms."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {A_CHECK:g} s")

    here = threading.current_thread() is threading.main_thread()
    if not (here and hasattr(signal, "setitimer")):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, A_CHECK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
