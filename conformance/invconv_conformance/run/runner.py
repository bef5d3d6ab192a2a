"""Run the laws over the cases, in one process or in several, and keep what came out."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases.quick import QUICK
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws.law import Law
from invconv_conformance.laws.setting import Floats, Measure, Setting
from invconv_conformance.laws.table import LAWS
from invconv_conformance.libraries.environment import peak_memory
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import COMPILING_EAGERLY, target_of
from invconv_conformance.run.result import Outcome, Result

# JAX keeps every program that it compiled, up to 200 MB a case, and some serve the next case too.
_REMEMBERED = 4  # cases after which a process forgets its programs
_performed = itertools.count(1)  # cases, by this process


@dataclass(frozen=True)
class Task:
    """A case on some columns, in words, so that it can go to another process."""

    case: str
    columns: tuple[Column, ...]
    laws: tuple[str, ...]


def tasks(columns: Iterable[Column], cases: Iterable[str], laws: Iterable[str]) -> list[Task]:
    """Return one task a library and case: what a process compiles for one dtype serves others.

    Where a library compiles eager code too, eager columns that stand beside compiled ones run on
    the cases `QUICK` only: they run the same code, and take five times as long.
    """
    libraries: dict[str, list[Column]] = {}
    for column in columns:
        libraries.setdefault(column.library, []).append(column)
    names, ids = tuple(cases), tuple(laws)
    return [
        Task(case, tuple(mine) if case in QUICK else without_eager(tuple(mine)), ids)
        for mine in libraries.values()
        for case in names
    ]


def without_eager(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the compiled columns of a library that compiles eager code too, all if it has none."""
    compiled = [c for c in columns if c.library in COMPILING_EAGERLY and c.mode != "eager"]
    return tuple(compiled) or columns


def run(todo: list[Task], workers: int = 1) -> Generator[list[Outcome]]:
    """Yield what each task found, in the order in which they end."""
    if workers == 1:
        yield from map(perform, todo)
        return
    # torch and JAX hold threads, which a forked process would not have
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        waiting = {pool.submit(perform, task): task for task in todo}
        for future in as_completed(waiting):
            try:
                yield future.result()
            except BrokenProcessPool as error:  # of all that were waiting, too
                yield _lost(waiting[future], error)
    finally:  # whoever is interrupted does not wait for the rest
        pool.shutdown(wait=False, cancel_futures=True)


def _lost(task: Task, error: BrokenProcessPool) -> list[Outcome]:
    """Return an error for each law, of a process that died."""
    what = f"a worker died, of too little memory perhaps: {error}"
    return [
        Outcome(
            column,
            task.case,
            [Result(law, task.case, *column, "error", what, np.inf, 1.0, 0.0) for law in task.laws],
            {},
        )
        for column in task.columns
    ]


def perform(task: Task) -> list[Outcome]:
    """Hold a case to the laws on each column."""
    case = next(c for c in CASES if c.name == task.case)
    outcomes = []
    for column in task.columns:
        if case.wide and column.dtype == "float16":
            continue
        setting = Setting(case, target_of(column), column.dtype)
        results = [check(LAWS[law], setting, column) for law in task.laws]
        outcomes.append(Outcome(column, case.name, results, _outputs(setting), peak_memory()))
    if next(_performed) % _REMEMBERED == 0:
        target_of(task.columns[0]).library.forget()
    return outcomes


def check(law: Law, setting: Setting, column: Column) -> Result:
    """Run one law on one case."""
    result = functools.partial(Result, law.id, setting.case.name, *column)
    if not law.applies(setting):
        return result("not applicable", "", 0.0, 1.0, 0.0)
    start = time.perf_counter()
    status, worst = "not applicable", Measure("", 0.0, 1.0)
    try:
        with _strict():
            for measure in law.check(setting):
                if status == "not applicable":
                    status, worst = "pass", measure
                if not measure.share <= worst.share:
                    worst = measure
                if not measure.share <= 1:
                    status = "fail"
    except Exception as error:  # a law that cannot run is a result, not an end
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        status, worst = "error", Measure(f"{type(error).__name__}: {first}", np.inf, 1.0)
    seconds = time.perf_counter() - start
    return result(status, worst.what, worst.error, worst.bound, seconds)


@contextmanager
def _strict() -> Iterator[None]:
    """Turn NumPy's warnings of overflow or NaN into errors; a lost inverse has a law of its own.

    But for one that depends on what was in memory before: on AVX-512, OpenBLAS's sgemv (0.3.31)
    reads what nothing was written to, for a matrix of five columns, and returns what is right.
    NumPy's products are quiet here (`invconv.kernels.numpy_primitives`), those of array-api-strict
    are not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value encountered in matmul", RuntimeWarning)
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        yield


def _outputs(setting: Setting) -> dict[str, Floats]:
    """Return what libraries are compared by, nothing where it cannot be computed."""
    if setting.case.singular:
        return {}
    try:
        x, y = (setting.array(image) for image in setting.images[:2])
        with _strict():
            found = {
                "forward": setting.conv.forward(x),
                "inverse": setting.conv.inverse(y),
                "log_det": setting.log_det_and_transpose(x)[0],
            }
            return {name: to_numpy(array).astype(float) for name, array in found.items()}
    except Exception:  # the laws have said so already
        return {}
