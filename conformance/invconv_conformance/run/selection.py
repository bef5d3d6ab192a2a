"""Which libraries, devices, modes and dtypes run, on which cases and laws; known failures."""

import fnmatch
import itertools
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import library_name
from invconv_conformance.cases import quick as of_quick
from invconv_conformance.cases.quick import QUICK
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries.library import Column, Library, as_it_is, unadapted
from invconv_conformance.libraries.table import COMPILING_EAGERLY, KNOWN, NEEDS_CUDA
from invconv_conformance.run.check import NAMED, Check, Result

Words = tuple[str, ...] | None
Expected = dict[str, str]  # reasons, by patterns such as "numpy-actnorm-* forward.value *-float16"


def checks(
    columns: Sequence[Column],
    cases: Iterable[str] = NAMED,
    laws: Iterable[str] = LAWS,
    quick: bool = False,
) -> Iterator[Check]:
    """Yield what there is to check, library by library, case by case and column by column.

    Where a library compiles eager code too, eager columns that stand beside compiled ones run on
    the cases `QUICK` only: they run the same code, and take five times as long.
    """
    libraries: dict[str, list[Column]] = {}
    for column in columns:
        libraries.setdefault(column.library, []).append(column)
    cases, laws = list(cases), list(laws)
    for mine in libraries.values():
        beside = any(c.mode != "eager" for c in mine) and mine[0].library in COMPILING_EAGERLY
        # eager ones last: compiled code is what they are beside
        ordered = sorted(mine, key=lambda c: c.mode == "eager") if beside else mine
        for case in cases:
            for column in ordered:
                usual = case in QUICK or not beside or column.mode != "eager"
                for one in (Check(case, column, law) for law in laws):
                    if one.speaks and (_is_quick(one, beside) if quick else usual):
                        yield one


def _is_quick(one: Check, beside: bool) -> bool:
    """Tell whether --quick runs a check: less where a compiler takes all the time."""
    case, column, law = one
    if case not in QUICK:
        library = KNOWN.get(column.library)
        native = library is not None and library.native and library.compile is as_it_is
        return native and case in of_quick.QUICK_MORE and law not in of_quick.QUICK_SHARED_LAWS
    if not beside:
        return True
    if column.mode != "eager":
        return case in of_quick.QUICK_COMPILED_LAWS.get(law, QUICK)
    return case in of_quick.QUICK_EAGER or law in of_quick.QUICK_EAGER_LAWS.get(case, ())


def quick_dtypes(column: Column) -> tuple[str, ...]:
    """Return the dtypes that --quick runs of a library in a mode.

    Half types add only casts. Of a library that compiles eager code too, which takes most of the
    time, eager code runs in float64. Of several devices without native code each has a dtype.
    """
    library = KNOWN.get(column.library)
    if library is not None and not library.native:
        return ("float64",) if column.device == library.devices()[0] else ("float32",)
    if column.mode != "eager":
        return ("float32",)
    return ("float64",) if column.library in COMPILING_EAGERLY else ("float64", "float32")


def few_eager(columns: Iterable[Column], results: Iterable[Result]) -> list[str]:
    """Return a line for each library of which only some cases run eagerly (see `checks`)."""
    asked = {c.library for c in columns if c.mode == "eager"} & COMPILING_EAGERLY
    lines, results = [], list(results)
    for name in asked:
        cases = {r.case for r in results if r.library == name}
        eager = {r.case for r in results if r.library == name and r.mode == "eager"}
        if eager < cases:
            which = f"{len(cases - eager)} of {len(cases)} cases, which run compiled"
            how = f"--library {name} --mode eager runs them"
            lines.append(f"{KNOWN[name].title}, eager: {which}; {how}")
    return lines


def choose(options: Any) -> tuple[list[Column], list[str]]:
    """Return the columns to run by the options of `plugin`, and why others are not run."""
    found, absent = _libraries(options.namespace, options.library)
    every = [c for library in found for c in library.columns(every_mode=True)]
    for name in ("device", "mode", "dtype") if every else ():
        known = list(dict.fromkeys(getattr(c, name) for c in every))
        for word in getattr(options, name) or ():
            if not any(_asked((word,), one) for one in known):
                hint = f", which {NEEDS_CUDA}: see python -m invconv info" * word.startswith("cuda")
                there = ", ".join(known)
                raise CommandError(f"--{name}: expected some of {there}, got {word!r}{hint}")
    columns = []
    dtype, mode = options.dtype is not None, options.mode is not None
    for library in found:
        mine = [
            c
            for c in library.columns(every_dtype=dtype, every_mode=mode)
            if _asked(options.device, c.device) and _asked(options.mode, c.mode)
            if _asked(options.dtype or (quick_dtypes(c) if options.quick else None), c.dtype)
        ]
        columns += mine
        if not mine and options.library not in (None, ("all",)):
            absent.append(f"{library.title}: has nothing of what was asked for")
        gpu = not library.host or any(d not in library.host for d in library.devices())
        if library.extra in ("torch", "jax") and not gpu:
            absent.append(f"{library.title} on CUDA: no GPU")
    if every and not columns:
        there = ", ".join("-".join(c) for c in every)
        raise CommandError(f"nothing to run with these --device, --mode and --dtype of {there}")
    return columns, absent


def _libraries(name: str | None, named: Words) -> tuple[list[Library], list[str]]:
    if name is not None and named is not None:
        raise CommandError("--library and --namespace: expected one of them")
    if name is not None and name not in KNOWN:
        library = unadapted(name)
        own = library_name(library.asarray(np.zeros(1), library.dtypes[-1], "default"))
        if own in KNOWN:
            raise CommandError(f"--namespace: arrays of {name} are of {own}; name that one")
        lacks = library.absent()
        return ([], [lacks]) if lacks else ([library], [])
    every = name is None and named in (None, ("all",))
    found, absent = [], []
    for one in KNOWN if every else named or (name,):
        if one not in KNOWN:
            expected = f"expected all, or some of {', '.join(KNOWN)}, got {one!r}"
            raise CommandError(f"--library: {expected}; --namespace runs any other")
        if (reason := KNOWN[one].absent()) is None:
            found.append(KNOWN[one])
        elif every:
            absent.append(reason)
        else:
            raise CommandError(f"--library: {reason}")
    return found, absent


def _asked(wanted: Words, name: str) -> bool:
    """Tell whether a name is one of those wanted; "cuda" stands for every "cuda:0"."""
    return wanted is None or any(word in (name, name.partition(":")[0]) for word in wanted)


def load_expected(options: Any) -> Expected:
    """Return the known failures of the file that the options name, else of the one that ships.

    They become pytest's strict xfail: a test that is listed and passes fails. A pattern that fits
    no test of any library, on devices here or a CUDA one, raises CommandError.
    """
    shipped = files("invconv_conformance") / "expected_failures.toml"
    source = shipped if (path := options.expected_failures) is None else Path(path)
    try:
        known = tomllib.loads(source.read_text(encoding="utf-8"))
        if wrong := [name for name, reason in known.items() if type(reason) is not str]:
            raise TypeError(f'expected lines such as "pattern" = "reason", got {wrong[0]!r}')
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, OSError) as error:
        raise CommandError(f"expected failures: {source} cannot be used: {error}") from None
    for pattern in known:
        if not any(fnmatch.fnmatchcase(_name(one), pattern) for one in _every(options.namespace)):
            raise CommandError(f"expected failures: no test has a name as {pattern!r} of {source}")
    return known


def _every(namespace: str | None) -> Iterator[Check]:
    """Yield every check of the table's libraries, absent ones too, and of a namespace."""
    own = [unadapted(namespace)] if namespace and namespace not in KNOWN else []
    for library in (*KNOWN.values(), *own):
        there = library.devices() if library in own or library.absent() is None else ()
        devices = {*there, *library.host, "cuda:0"}
        for names in itertools.product(devices, library.modes, library.dtypes):
            column = Column(library.name, *names)
            yield from (one for c in NAMED for law in LAWS if (one := Check(c, column, law)).speaks)


def _name(check: Check) -> str:
    library, *others = check.column
    return f"{library}-{check.case} {check.law} {'-'.join(others)}"


def expected(known: Expected, check: Check) -> list[str]:
    """Return why a test is expected to fail, nothing of one that is not."""
    name = _name(check)
    return [reason for pattern, reason in known.items() if fnmatch.fnmatchcase(name, pattern)]
