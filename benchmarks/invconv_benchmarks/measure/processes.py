"""Worker processes, which end with their parent."""

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def pool(
    workers: int, variables: Mapping[str, str], begin: Callable[..., None], *args: object
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of new processes, with these variables, that run ``begin`` first."""
    first = functools.partial(_begin, begin, *args)
    with mock.patch.dict(os.environ, variables), ProcessPoolExecutor(workers, SPAWN, first) as one:
        yield one


def _begin(begin: Callable[..., None], *args: object) -> None:
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    begin(*args)


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)  # no file is ever half written
