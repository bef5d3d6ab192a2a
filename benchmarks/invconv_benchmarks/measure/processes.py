"""Worker processes, which end with their parent."""

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from invconv_conformance.libraries.environment import environment

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def pool(
    workers: int, variables: Mapping[str, str], begin: Callable[..., None], *args: object
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of new processes that end when their parent dies.

    They start with these variables in their environment, and run ``begin`` first.
    """
    with (
        environment(variables),
        ProcessPoolExecutor(workers, SPAWN, functools.partial(_begin, begin, *args)) as executor,
    ):
        yield executor


def _begin(begin: Callable[..., None], *args: object) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    begin(*args)


def _end_with_the_parent() -> None:
    """Wait until the parent has died, and end this process. No file is ever half written."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
