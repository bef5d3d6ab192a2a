"""What a run is to hold: which libraries, devices, modes and dtypes, cases and laws."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator
from dataclasses import replace

from invconv.arrays.errors import CommandError
from invconv_conformance.cases.quick import (
    QUICK,
    QUICK_COMPILED_LAWS,
    QUICK_EAGER,
    QUICK_EAGER_LAWS,
    QUICK_MORE,
    QUICK_SHARED_LAWS,
)
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws.table import LAWS
from invconv_conformance.libraries.library import Column, Library, as_it_is, unadapted
from invconv_conformance.libraries.table import COMPILING_EAGERLY, LIBRARIES
from invconv_conformance.run.runner import Task, without_eager


def select(pattern: str, quick: bool) -> list[str]:
    """Return the names of the cases that match a pattern such as "periodic-*"."""
    found = [c.name for c in CASES if fnmatch.fnmatchcase(c.name, pattern)]
    if quick:
        found = [name for name in found if name in (*QUICK, *QUICK_MORE)]
    if not found:
        raise CommandError(f"--cases: nothing is named {pattern!r}{' in --quick' * quick}")
    return found


def select_laws(pattern: str) -> list[str]:
    """Return the ids of the laws that match a pattern."""
    found = [name for name in LAWS if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise CommandError(f"--laws: nothing is named {pattern!r}; there are {', '.join(LAWS)}")
    return found


def quickly(todo: list[Task]) -> list[Task]:
    """Return the tasks of --quick: most libraries have fewer, and eager code that is compiled."""
    quick = {lib.name for lib in LIBRARIES if lib.native and lib.compile is as_it_is}
    kept = [t for t in todo if t.case in QUICK or t.columns[0].library in quick]
    return [part for task in kept for part in _quick_parts(_without_shared_laws(task))]


def _without_shared_laws(task: Task) -> Task:
    """Return a task without the laws that cases of `QUICK` are enough for, unless it is of one."""
    skipped = () if task.case in QUICK else QUICK_SHARED_LAWS
    return replace(task, laws=tuple(law for law in task.laws if law not in skipped))


def _quick_parts(task: Task) -> Iterator[Task]:
    """Yield the columns of a task with their laws: fewer where a compiler takes all the time."""
    compiled = without_eager(task.columns)
    if compiled == task.columns:
        yield task
        return
    eager = tuple(c for c in task.columns if c not in compiled)
    skipped = {law for law, cases in QUICK_COMPILED_LAWS.items() if task.case not in cases}
    yield replace(task, columns=compiled, laws=tuple(x for x in task.laws if x not in skipped))
    some = QUICK_EAGER_LAWS.get(task.case, task.laws if task.case in QUICK_EAGER else ())
    if laws := tuple(law for law in task.laws if law in some):
        yield replace(task, columns=eager, laws=laws)


def few_eager(todo: list[Task]) -> list[str]:
    """Return a line for each library of which only some cases run eagerly (see `tasks`)."""
    lines = []
    for library in (one for one in LIBRARIES if one.compiles_eagerly):
        mine = [task for task in todo if task.columns[0].library == library.name]
        cases = {task.case for task in mine}
        eager = {task.case for task in mine if any(c.mode == "eager" for c in task.columns)}
        if 0 < len(eager) < len(cases):
            lines.append(
                f"{library.title}, eager: {len(cases - eager)} of {len(cases)} cases, which run "
                f"compiled; --library {library.name} --mode eager runs them"
            )
    return lines


def choose(arguments: argparse.Namespace) -> tuple[list[Column], list[str]]:
    """Return what to run, and why the rest is not run.

    Raises
    ------
    ValueError
        If a library that was asked for by name cannot run, or nothing is left to run.
    """
    found, absent = _libraries(arguments)
    if not found:
        return [], absent
    _require_known(arguments, found)
    columns = [
        column
        for library in found
        for column in library.columns(
            every_dtype=arguments.dtype is not None, every_mode=arguments.mode is not None
        )
        if _asked(arguments.device, column.device)
        and _asked(arguments.mode, column.mode)
        and _asked(arguments.dtype, column.dtype)
        and (not arguments.quick or arguments.dtype or column.dtype in quick_dtypes(column))
    ]
    if not columns:
        asked = {
            name: ",".join(getattr(arguments, name) or ["any"])
            for name in ("device", "mode", "dtype")
        }
        every = [c for lib in found for c in lib.columns(every_dtype=True, every_mode=True)]
        there = [f"{k} {', '.join(dict.fromkeys(getattr(c, k) for c in every))}" for k in asked]
        raise CommandError(
            f"nothing to run with {', '.join(f'--{k} {v}' for k, v in asked.items())}: "
            f"{', '.join(library.title for library in found)} here has {'; '.join(there)}"
        )
    chosen = {column.library for column in columns}
    for library in found:
        if arguments.library not in (None, ("all",)) and library.name not in chosen:
            absent.append(f"{library.title}: has nothing of what was asked for")
        gpu = not library.host or any(d not in library.host for d in library.devices())
        if library.extra in ("torch", "jax") and not gpu:
            absent.append(f"{library.title} on CUDA: no GPU")
    return columns, absent


def _require_known(arguments: argparse.Namespace, found: list[Library]) -> None:
    """Raise where a word is that of no device, mode or dtype of these libraries."""
    every = [c for lib in found for c in lib.columns(every_dtype=True, every_mode=True)]
    for name in ("device", "mode", "dtype"):
        known = list(dict.fromkeys(getattr(c, name) for c in every))
        for word in getattr(arguments, name) or ():
            if not any(_asked((word,), one) for one in known):
                raise CommandError(f"--{name}: expected some of {', '.join(known)}, got {word!r}")


def _libraries(arguments: argparse.Namespace) -> tuple[list[Library], list[str]]:
    known = {library.name: library for library in LIBRARIES}
    if arguments.namespace is not None:
        if arguments.library is not None:
            raise CommandError("--library and --namespace: expected one of them")
        if arguments.namespace in known:
            raise CommandError(
                f"--namespace: {arguments.namespace} has an adapter: use --library "
                f"{arguments.namespace}"
            )
        library = unadapted(arguments.namespace)
        lacks = library.absent()
        return ([], [lacks]) if lacks else ([library], [])
    every = arguments.library in (None, ("all",))
    found, absent = [], []
    for name in known if every else arguments.library:
        if name not in known:
            raise CommandError(
                f"--library: expected all, or some of {', '.join(known)}, got {name!r}; "
                f"a library that is not among them is run by --namespace"
            )
        if reason := known[name].absent():
            if not every:
                raise CommandError(f"--library: {reason}")
            absent.append(reason)
        else:
            found.append(known[name])
    return found, absent


def quick_dtypes(column: Column) -> tuple[str, ...]:
    """Return the dtypes that --quick runs of a library in a mode.

    Half types add only casts. A compiler takes most of the time: of a library that compiles eager
    code too, eager code runs in float64, and compiled code in float32. Of one that has several
    devices and no native code, each device has a dtype.
    """
    library = next((one for one in LIBRARIES if one.name == column.library), None)
    if library is not None and not library.native and len(devices := library.devices()) > 1:
        return ("float64",) if column.device == devices[0] else ("float32",)
    if column.mode != "eager":
        return ("float32",)
    return ("float64",) if column.library in COMPILING_EAGERLY else ("float64", "float32")


def _asked(wanted: tuple[str, ...] | None, name: str) -> bool:
    """Tell whether a name is one of those wanted; "cuda" stands for every "cuda:0"."""
    return wanted is None or any(word in (name, name.partition(":")[0]) for word in wanted)
