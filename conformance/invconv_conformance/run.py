"""Checks, each of one law on one case in one column, and their selection by the user's options.

Known failures are expected, and by their names. Imports `laws`.
"""

import fnmatch
import functools
import itertools
import math
import re
import shlex
import time
import tomllib
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import invconv as ic
from invconv.arrays.errors import CommandError
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws import LAWS
from invconv_conformance.laws.law import Floats, Law, Measure
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries import (
    COMPILING_EAGERLY,
    KNOWN,
    NEEDS_CUDA,
    Column,
    Library,
    chosen,
    required_functions,
    target_of,
    unadapted,
)

# JAX keeps every compiled program, up to 200 MB a case; some serve the next case too.
_REMEMBERED = 12  # after so many settings a process forgets its programs
_settings = itertools.count(1)  # counts the settings of this process
NAMED = {case.name: case for case in (*CASES, *CALLS)}


@dataclass(frozen=True)
class LawVerdict:
    """The verdict of a law on a case in a column."""

    law: str
    case: str
    column: Column
    status: str  # "pass", "fail", "error", "not applicable", or "expected": a known failure
    what: str  # the output that used up most of its bound, or the last line of the error
    error: float
    bound: float
    seconds: float
    reason: str = ""  # of an expected failure
    rules: str = ""  # the author's methods that a failure points to
    frames: str = ""  # where an error was raised
    calls: frozenset[str] = frozenset()  # array functions, of a library without an adapter
    suspects: str = ""  # those that wrong numbers share and other checks do not

    @property
    def bad(self) -> bool:
        """Whether it is a failure that nobody expects."""
        return self.status in ("fail", "error")

    @property
    def reproduce(self) -> str:
        """The command that runs this law and case alone."""
        library, _, mode, dtype = self.column
        which = f"{'--library' if library in KNOWN else '--namespace'} {library}"
        test = shlex.quote(Check(self.case, self.column, self.law).name)
        return f"python -m invconv conformance {which} --mode {mode} --dtype {dtype} -k {test}"


def with_suspects(results: Sequence[LawVerdict]) -> list[LawVerdict]:
    """Add to each wrong number the three functions called for it that most wrong numbers share.

    They are ordered as A. Ochiai's coefficient orders places in programs.
    """
    called, wrong = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for r in results:
        names = [(r.column.library, name) for name in r.calls]
        called.update(names)
        wrong.update(names * (r.status == "fail"))

    def suspects(r: LawVerdict) -> str:
        keys = [(r.column.library, name) for name in sorted(r.calls)]
        keys.sort(key=lambda key: -wrong[key] / math.sqrt(called[key]))
        return ", ".join(f"{key[1]} ({wrong[key]} of {called[key]})" for key in keys[:3])

    return [replace(r, suspects=suspects(r)) if r.status == "fail" else r for r in results]


def never_called(results: Sequence[LawVerdict]) -> Iterator[str]:
    """Return the array functions of the core that no check called of a library without adapter."""
    needed = [
        f"{extension}.{name}".removeprefix(".")
        for extension, names in required_functions().items()
        for name in names
        if not name.startswith("_") and not name[-1].isdigit()  # a dtype
    ]
    for library in dict.fromkeys(r.column.library for r in results if r.calls):
        calls = frozenset[str]().union(*(r.calls for r in results if r.column.library == library))
        called = {name.partition(" ")[0] for name in calls}
        if never := ", ".join(name for name in needed if name not in called):
            yield f"{library}'s functions {never}: no check called them"


class Check(NamedTuple):
    """A law on a case in a column, in words, so that it can go to another process."""

    case: str
    column: Column
    law: str

    @property
    def name(self) -> str:
        """The name of its test."""
        return f"{self.column.library}-{self.case}::{self.law}[{'-'.join(self.column[1:])}]"

    @property
    def speaks(self) -> bool:
        """Whether the law is about such cases and modes at all."""
        case = NAMED[self.case]
        fits = not (case.wide and self.column.dtype == "float16")
        return fits and LAWS[self.law].speaks_of(case, self.column.mode)

    def run(self) -> LawVerdict:
        """Return the result of the law on the case."""
        return check(LAWS[self.law], setting(self.case, self.column))


@functools.lru_cache(maxsize=1)
def setting(case: str, column: Column) -> Setting:
    """Return a case in a column: the laws share its operator, its truth and its programs."""
    target = target_of(column)
    if next(_settings) % _REMEMBERED == 0:
        target.library.forget()
    return Setting(NAMED[case], target, column.dtype)


def check(law: Law, setting: Setting) -> LawVerdict:
    """Hold a case to a law: the worst of its measures decides.

    A failure points to the methods of the first measure that fails: the later ones build on them.
    """
    target, start = setting.target, time.perf_counter()
    status, worst, rules, frames = "not applicable", Measure("", 0.0, 1.0), law.rules, ""
    try:
        with _strict():
            if measures := list(law.check(setting)):
                worst = max(measures, key=lambda measure: measure.share)
                status = "pass" if worst.share <= 1 else "fail"
                rules = next((m.rules for m in measures if m.share > 1), "") or law.rules
    except Exception as error:  # a law that cannot run is a result, not an end
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        status, worst = "error", Measure(f"{type(error).__name__}: {first}", np.inf, 1.0)
        rules, frames = "", last_frames(error)
    column = Column(target.library.name, target.device, target.mode, setting.dtype)
    numbers = float(worst.error), float(worst.bound), time.perf_counter() - start
    named = law.id, setting.case.name, column, status, worst.what
    return LawVerdict(*named, *numbers, rules=rules, frames=frames)


_FRAMES = 3  # as many as are shown of an error
_OURS = [Path(root).parent for root in (ic.__file__, __file__)]


def last_frames(error: BaseException) -> str:
    """Return where an error was raised: the last frames of files that are not ours, if any."""
    every = traceback.extract_tb(error.__traceback__)
    ours = [any(root in Path(f.filename).parents for root in _OURS) for f in every]
    theirs = [frame for frame, own in zip(every, ours, strict=True) if not own]
    return "".join(traceback.format_list((theirs or every)[-_FRAMES:])).rstrip()


@contextmanager
def _strict() -> Iterator[None]:
    """Turn NumPy's warnings of overflow or NaN into errors; a lost inverse has a law of its own.

    One warning is left out, since it depends on earlier contents of memory: on AVX-512,
    OpenBLAS's sgemv (0.3.31) reads unwritten memory for five columns; its result is right.
    """
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        warnings.filterwarnings("ignore", "invalid value encountered in matmul", RuntimeWarning)
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        yield


def outputs(setting: Setting) -> dict[str, Floats]:
    """Return the results by which libraries are compared, none if they cannot be computed."""
    if setting.case.singular:
        return {}
    try:
        x, y = (setting.array(image) for image in setting.images[:2])
        with _strict():
            found = {"forward": setting.conv.forward(x), "inverse": setting.conv.inverse(y)}
            found["log_det"] = setting.more("log_det", x)
            return {name: to_numpy(array).astype(float) for name, array in found.items()}
    except Exception:  # a law has reported this error already
        return {}


# --- The selection of --quick ---
# one case of each kind, enough to see within half a minute that a library is wired up
_ONE_OF_EACH = """
    corner-bias raster-k2x3-dilated periodic-even-dilated exponential-norm-0.0001 pluconv1x1-2d
    qrconv1x1-m100 chain-inverses actnorm-2d singular-corner singular-quarter-turns ill-corner
    lfilter-long-b-1-whole from_psf-odd-periodic-each least_squares-periodicconv-array
"""
# where eager code is compiled too, operation by operation: one with all laws, and some with laws of
# what happens in eager code alone
QUICK_EAGER_LAWS = {
    "periodic-even-dilated": tuple(LAWS),
    "singular-corner": ("singular",),
    "ill-corner": ("warning", "errors"),
    "pluconv1x1-2d": ("autodiff",),
}
# laws for which all code is compiled again, and the cases that they run on
QUICK_COMPILED_LAWS = {"empty": ("corner-bias", "periodic-even-dilated")}
# laws about code that all operators share: one case of each kind is enough
_SHARED_LAWS = """
    copies determinism diagnosis edits empty guard kind layout no_mutation no_promotion threads
    updates
"""
# cases of what native code may get wrong besides, where nothing is compiled for seconds: held to
# all other laws
_MORE = """
    corner-2d+- corner-3d-dilated corner-4d-++- raster-3d+1 emerging-2d chain-merged
    exponential-circular-k7-on-2x3 exponential-zeros-skew symmetric-bias symmetric-long
    bordered-zero-zero bordered-mirror-periodic-symmetric bordered-symmetric-odd
    conv1x1-2d orthogonalconv1x1-m2 circulantconv1x1-c4
    singular-symmetric singular-actnorm ill-symmetric ill-pixel tiny-periodicconv
    corner-on-18-rows raster-on-18-rows corner-3d-on-18-rows corner-wide-on-one-image
    corner-tall-on-one-image corner-17-images corner-31-images corner-25-channels corner-signal
    sosfilt-0-zi damp_for_noise-symmetricconv squeeze-4-2-haar unsqueeze-3-2-dct
    before--1-dilation-2 propagate-columns-back unpropagate-corner
"""
QUICK, QUICK_SHARED_LAWS, QUICK_MORE = (
    tuple(names.split()) for names in (_ONE_OF_EACH, _SHARED_LAWS, _MORE)
)

Words = tuple[str, ...] | None
Expected = dict[str, str]  # reasons, by patterns such as "numpy-actnorm-* forward.value *-float16"


def checks(
    columns: Sequence[Column],
    cases: Iterable[str] = NAMED,
    laws: Iterable[str] = LAWS,
    quick: bool = False,
) -> Iterator[Check]:
    """Yield the checks, library by library, case by case and column by column.

    Where a library compiles eager code too, eager columns that stand beside compiled ones run on
    the cases `QUICK` only: they run the same code, and take five times as long.
    """
    cases, laws = list(cases), list(laws)
    for name, group in itertools.groupby(columns, key=lambda column: column.library):
        mine = list(group)
        beside = name in COMPILING_EAGERLY and any(c.mode != "eager" for c in mine)
        # eager columns last: they stand beside compiled ones
        ordered = sorted(mine, key=lambda c: c.mode == "eager") if beside else mine
        for case in cases:
            for column in ordered:
                usual = case in QUICK or not beside or column.mode != "eager"
                for one in (Check(case, column, law) for law in laws):
                    if one.speaks and (_is_quick(one, beside) if quick else usual):
                        yield one


def _is_quick(one: Check, beside: bool) -> bool:
    """Tell whether --quick runs a check: fewer where compilers take most of the time."""
    case, column, law = one
    if case not in QUICK:
        library = KNOWN.get(column.library)
        native = library is not None and library.native and not library.compiles_eagerly
        return native and case in QUICK_MORE and law not in QUICK_SHARED_LAWS
    if not beside:
        return True
    if column.mode != "eager":
        return case in QUICK_COMPILED_LAWS.get(law, QUICK)
    return law in QUICK_EAGER_LAWS.get(case, ())


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


def few_eager(columns: Iterable[Column], results: Iterable[LawVerdict]) -> list[str]:
    """Return a line for each library of which only some cases run eagerly (see `checks`)."""
    asked = {c.library for c in columns if c.mode == "eager"} & COMPILING_EAGERLY
    lines, results = [], list(results)
    for name in asked:
        cases = {r.case for r in results if r.column.library == name}
        eager = {r.case for r in results if r.column[::2] == (name, "eager")}
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
    if every and not columns:
        there = ", ".join("-".join(c) for c in every)
        raise CommandError(f"nothing to run with these --device, --mode and --dtype of {there}")
    return columns, absent


def _libraries(name: str | None, named: Words) -> tuple[list[Library], list[str]]:
    if name is not None and named is not None:
        raise CommandError("--library and --namespace: expected one of them")
    if name is not None and name not in KNOWN:
        library = unadapted(name)
        lacks = library.absent()
        return ([], [lacks]) if lacks else ([library], [])
    return chosen(named if name is None else (name,), hint="; --namespace runs any other")


def _asked(wanted: Words, name: str) -> bool:
    """Tell whether a name is one of those wanted; "cuda" stands for every "cuda:0"."""
    return wanted is None or any(word in (name, name.partition(":")[0]) for word in wanted)


def load_expected(options: Any) -> Expected:
    """Return the known failures of the file that the options name, else of the shipped file.

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
        if not any(expected({pattern: ""}, one) for one in _every(options.namespace)):
            one = next(_every(options.namespace))
            raise CommandError(
                f"expected failures: no test has a name as {pattern!r} of {source}; expected "
                f'"library-case law device-mode-dtype", * for any text: "*-{one.case} {one.law} *" '
                f"fits {_spaced(one)!r}"
            )
    return known


def _every(namespace: str | None) -> Iterator[Check]:
    """Yield every check of the table's libraries, absent ones too, and of a namespace."""
    own = [unadapted(namespace)] if namespace and namespace not in KNOWN else []
    for library in (*KNOWN.values(), *own):
        there = library.devices() if library in own or library.absent() is None else ()
        devices = {*there, *library.host, "cuda:0"}
        for names in itertools.product(devices, ("eager", *library.modes), library.dtypes):
            column = Column(library.name, *names)
            yield from (one for c in NAMED for law in LAWS if (one := Check(c, column, law)).speaks)


def expected(known: Expected, check: Check) -> list[str]:
    """Return why a test is expected to fail, or nothing."""
    name = _spaced(check)
    return [reason for pattern, reason in known.items() if fnmatch.fnmatchcase(name, pattern)]


def _spaced(check: Check) -> str:
    """Return a test's name as patterns have it: brackets mean something else in them."""
    return re.sub(r"::|\[|\]$", " ", check.name).strip()
