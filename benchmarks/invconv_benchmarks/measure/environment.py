"""The machine, the versions and the commit that a run was made with, and its worker processes."""

import datetime
import functools
import multiprocessing
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import invconv
from invconv_conformance.info import version
from invconv_conformance.libraries import LIBRARIES

SPAWN = multiprocessing.get_context("spawn")
_QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")
_OTHERS = ("scipy", "array-api-compat", "llvmlite", "threadpoolctl")


def begin() -> Callable[[], dict[str, Any]]:
    """Begin a run; return a function that describes it at its end, as a JSON object."""
    start, before = time.monotonic(), load()
    names = [library.installed_as or library.distribution for library in LIBRARIES]
    return lambda: {
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "environment": {
            "cpu": _cpu(),
            "cores": cores(),
            "memory_bytes": _memory(),
            "gpus": _output("nvidia-smi", *_QUERY).splitlines(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in (*names, *_OTHERS)},
            "blas": _blas(),
            "commit": _commit(),
        },
        "load": {"start": before, "end": load()},
    }


def told(record: Mapping[str, Any], *packages: str) -> str:
    """Return packages' versions, the date of a run, and whether the machine was busy, in words."""
    there = record["environment"]
    versions = [f"{name} {there['versions'][name]}" for name in packages]
    was_busy = ["**on a machine that was busy with other work**"]
    was_busy *= busy(record["load"], there["cores"])
    return ", ".join([*versions, record["date"][:10], *was_busy])


def cores() -> int:
    """Return on how many cores this process may run."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def load() -> float | None:
    """Return how many processes wanted to run during the last minute, if the system tells."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def busy(loads: Mapping[str, float | None], cores: int) -> bool:
    """Tell by the loads around a measurement whether other processes wanted to run too."""
    return max((load or 0.0 for load in loads.values()), default=0.0) > cores + 1


def _cpu() -> str:
    known = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", known.read_text()) if known.exists() else None
    return name[1].strip() if name else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _blas() -> list[str]:
    """Return the processors whose kernels BLAS libraries chose, such as "SkylakeX"."""
    from threadpoolctl import threadpool_info  # the demo, which has no result, does without

    return sorted({pool["architecture"] for pool in threadpool_info() if "architecture" in pool})


def _commit() -> str:
    """Return the commit of the working tree that this file is in, "+" if files were changed."""
    git = ("git", "-C", str(Path(__file__).parents[1]))
    commit = _output(*git, "rev-parse", "--short=12", "HEAD")
    if not commit or not _output(*git, "ls-files", __file__):
        return "not in a repository"
    return commit + "+" * bool(_output(*git, "status", "--porcelain", "-uno"))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@contextmanager
def pool(
    workers: int, variables: Mapping[str, str], begin: Callable[..., None], *args: object
) -> Iterator[ProcessPoolExecutor]:
    """Yield processes, with these variables, that run ``begin`` first and end with their parent."""
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
