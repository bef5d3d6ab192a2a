"""What holds for all tests: one thread a process, a share of memory, and what was not run.

The arrays are small, and pytest-xdist runs a process a core. All processes keep JAX's compiled
programs in one folder, and forget what they compiled after each module.
"""

import ctypes
import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# all threads of a process share memory that they free, which else stays with each (glibc)
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # of processes that this one starts
gc.disable()  # until all is imported, of which nothing goes

# XLA compiles thousands of small programs for the tests; how fast they run does not matter. It
# takes a third longer with the emitters that users have.
_QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _QUICK_TO_COMPILE)

# what tests start as processes of their own: to look for doctests imports what they need
collect_ignore_glob = ["tests/*/torch_ddp.py"]

_MOST_MEMORY = 2 * 2**30  # bytes of a process that runs tests
_MORE_MEMORY = 100 * 2**20  # bytes after which a process forgets compiled programs
_kept = [0]  # bytes of memory, when it last did
_programs: list[str] = []
_peaks: dict[str, int] = {}
_deselected: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Give workers a folder for the programs that JAX compiles."""
    config.pluginmanager.register(_Forgetting())
    if _is_worker(config) or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    _programs.append(tempfile.mkdtemp(prefix="invconv-programs-"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs[0]
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure() -> None:
    """Remove the folder."""
    while _programs:
        shutil.rmtree(_programs.pop(), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the suite, whose tests are the longest: no worker waits for one at the end."""
    items.sort(key=lambda item: item.path.parent.name != "suite")


def pytest_collection_finish() -> None:
    """Have the garbage collector leave out what was imported: it looks at all that it has."""
    gc.enable()
    gc.freeze()


class _Forgetting:
    """A plugin, since a hook of this file is not called for the doctests of other rooms."""

    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Forget what JAX and PyTorch compiled for a module, or has become much: they keep all."""
        if nextitem is None or nextitem.path != item.path or _memory() > _kept[-1] + _MORE_MEMORY:
            _forget()
            _kept[:] = [_memory()]


def _forget() -> None:
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.reset()
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # without it freed memory stays with the process


def _memory() -> int:
    """Return the bytes of memory that this process has now, 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_memory() -> int:
    """Return the most bytes of memory that this process has had, 0 where that is not known."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what -m and -k leave out: every worker leaves out the same."""
    _deselected["this process"] = _deselected.get("this process", 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Have a worker tell how much memory it took."""
    if _is_worker(session.config):
        told = {"peak_memory": _peak_memory(), "deselected": sum(_deselected.values())}
        session.config.workeroutput.update(told)  # type: ignore[attr-defined]
    else:
        _peaks["this process"] = _peak_memory()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Note what a worker told."""
    told = getattr(node, "workeroutput", {})  # nothing of one that died
    _peaks[node.gateway.id] = told.get("peak_memory", 0)
    _deselected[node.gateway.id] = told.get("deselected", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell what ran, what did not and why, and how much memory it took."""
    from invconv_conformance.libraries import LIBRARIES

    stats: dict[str, list[Any]] = terminalreporter.stats
    counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    ran = counts["passed"] + counts["failed"]
    write = terminalreporter.write_line
    terminalreporter.section("ran and not run")
    write(f"ran: {ran} tests, {counts['failed']} failed, {counts['error']} with errors around them")
    for why, count in Counter(_reason(report) for report in stats.get("skipped", ())).items():
        write(f"not run: {count} tests: {why}")
    if left := max(_deselected.values(), default=0):
        options = config.option
        chosen = [f"-m {options.markexpr!r}"] * bool(options.markexpr)
        chosen += [f"-k {options.keyword!r}"] * bool(options.keyword)
        write(f"not run: {left} tests, left out by {' and '.join(chosen)}")
    for library in LIBRARIES:
        reason = library.absent()
        write(f"ran: {library.title}" if reason is None else f"not run: {reason}")
    for worker, peak in sorted(_peaks.items()):
        much = f", over {_MOST_MEMORY / 2**30:.0f} GB" * (peak > _MOST_MEMORY)
        write(f"memory of {worker}: {peak / 2**30:.2f} GB at most{much}")


def _reason(report: Any) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
