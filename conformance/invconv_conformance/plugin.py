"""The suite as a pytest plugin, and its command: a test for each law, case and column of a library.

``pytest --pyargs invconv_conformance --namespace cupy -k "periodic and ::inverse"`` runs it, and
``python -m invconv conformance`` is a front for it. A test's id is
``test_laws.py::numpy-periodic-2d::inverse.value[cpu-eager-float64]``, so that with pytest-xdist's
``--dist loadscope`` one process runs all laws of a case and what it compiles for one serves others.
"""

import argparse
import dataclasses
import json
import math
import os
import pickle
import re
import shlex
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import current_thread, main_thread
from typing import Any
from unittest import mock

import pytest

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text
from invconv_conformance import libraries, printing
from invconv_conformance import run as runs
from invconv_conformance.arguments import positive, require_writable, words
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import COMPILING_EAGERLY, Column, calls_recorded, target_of
from invconv_conformance.report import Output, agreement, as_page, document, show

A_CHECK = 10.0  # seconds, for libraries without an adapter; lazy ones may build graphs without end
SUITE = Path(__file__).with_name("test_laws.py")
_ID = re.compile(
    rf"{re.escape(SUITE.name)}::(?P<library>[^:-]+)-(?P<case>.+)::(?P<law>[a-z_.]+)"
    r"\[(?P<device>[^-]+)-(?P<mode>[^-]+)-(?P<dtype>\w+)\]$"
)

_MODES = "only these modes: eager, jit; torch also aot_eager, inductor"
_QUICK = "one case of each kind, in float64 and float32 (compiled: float32; eager JAX, which "
_SECONDS = "that a library of --namespace may take in all; 60 unless given"
OPTIONS: dict[str, dict[str, Any]] = {  # the selection and the output; argparse takes them, too
    "library": {"type": words, "help": "all (the default), or some names with commas between"},
    "namespace": {"help": "an array library that nobody adapted, by import name: dask.array"},
    "device": {"type": words, "help": "only these, such as cpu,cuda:0; cuda means all"},
    "mode": {"type": words, "help": _MODES},
    "dtype": {"type": words, "help": "only these dtypes, such as float64,float32"},
    "quick": {"action": "store_true", "help": f"{_QUICK}compiles too: float64)"},
    "seconds": {"type": positive, "default": 60.0, "help": _SECONDS},
    "expected-failures": {"help": "a TOML file of known failures, instead of our own"},
    "json": {"help": "write every result here"},
    "html": {"help": "write a page to look at here"},
}
FILES = {"json": "invconv-json", "html": "invconv-html"}  # --html is pytest-html's


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("invconv conformance")
    for name, about in OPTIONS.items():
        group.addoption(f"--{FILES.get(name, name)}", **about)


_SUITE = pytest.StashKey["Suite"]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the columns; a worker of pytest-xdist only runs."""
    try:
        known = runs.load_expected(config.option)
        config.stash[_SUITE] = suite = Suite(config, *runs.choose(config.option), known)
        for path in filter(None, (config.getoption(f"--{name}") for name in FILES.values())):
            require_writable(Path(path).parent)
    except (CommandError, OSError) as error:
        raise pytest.UsageError(str(error)) from None
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(suite, "invconv-conformance")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the file that stands for the suite."""
    return SuiteFile.from_parent(parent, path=file_path) if file_path == SUITE else None


class SuiteFile(pytest.File):
    """All tests, those of one library and case beside each other."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each library, case, column and law."""
        for one in runs.checks(self.config.stash[_SUITE].columns, quick=self.config.option.quick):
            yield LawTest.from_parent(self, name=one.name, check=one)


class LawTest(pytest.Item):
    """One law on one case in one column."""

    def __init__(self, *, check: runs.Check, **options: Any) -> None:
        super().__init__(**options)
        self.check = check
        self.result: runs.LawVerdict | None = None
        self.outputs: dict[str, Any] = {}
        for reason in runs.expected(self.config.stash[_SUITE].known, check):
            self.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def runtest(self) -> None:
        """Hold the case to the law."""
        library = target_of(self.check.column).library
        strange = not (library.adapted or library.native)
        used = time.monotonic() - self.config.stash[_SUITE].start
        if (strange or self.config.option.namespace) and used > self.config.option.seconds:
            pytest.skip("its time is over")
        has_alarms = hasattr(signal, "setitimer") and current_thread() is main_thread()
        with ExitStack() as around:
            if strange and has_alarms:
                around.enter_context(limited())
            calls = around.enter_context(calls_recorded(library)) if strange else ()
            result = self.check.run()
            self.result = dataclasses.replace(result, calls=frozenset(calls))
            if self.check.law == "forward.value":  # the law that holds for every case
                self.outputs = runs.outputs(runs.setting(*self.check[:2]))
        if self.result.status == "not applicable":
            pytest.skip("the law says nothing of this case here")
        if (r := self.result).bad:
            numbers = f": error {r.error:.3g}, bound {r.bound:.3g}" * (r.status == "fail")
            text = "\n".join(filter(None, (f"{r.what}{numbers}", r.frames, r.reproduce)))
            pytest.fail(text, pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where it is."""
        return self.path, None, self.name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Give a report the result, in bytes, which pytest-xdist takes along."""
    report: Any = yield
    if isinstance(item, LawTest) and call.when == "call" and item.result is not None:
        marks: dict[str, Any] = {}
        if report.skipped and hasattr(report, "wasxfail"):
            marks = {"status": "expected", "reason": report.wasxfail}
        elif report.failed and not item.result.bad:
            marks = {"status": "fail", "what": str(report.longrepr)}  # it passed, and should fail
        report.law = pickle.dumps((dataclasses.replace(item.result, **marks), item.outputs))
    return report


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in a check that takes too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {A_CHECK:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, A_CHECK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclasses.dataclass(eq=False)
class Suite:
    """A session: the selection, the tests' reports, and the tables and files at the end."""

    config: pytest.Config
    columns: list[Column]
    absent: list[str]  # why each absent library is not run
    known: runs.Expected  # failures
    start: float = dataclasses.field(default_factory=time.monotonic)
    results: list[runs.LawVerdict] = dataclasses.field(default_factory=list)
    outputs: list[Output] = dataclasses.field(default_factory=list)
    late: int = 0  # tests that were left out, since the library's time was over

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep a result; a worker that died has left none."""
        if hasattr(report, "law"):
            result, outputs = pickle.loads(report.law)
            self.results.append(result)
            self.outputs.append((result.column, result.case, outputs))
        elif (named := _ID.search(report.nodeid)) and report.failed:
            case, law, *column = named.group("case", "law", *Column._fields)
            said = "error", str(report.longrepr), math.inf, 1.0, 0.0
            self.results.append(runs.LawVerdict(law, case, Column(*column), *said))
        elif named and report.skipped:
            self.late += 1

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Show no letter for each of the thousands of tests that pass or say nothing."""
        ours = _ID.search(report.nodeid) and report.when == "call"
        silent = ours and self.config.option.verbose <= 0 and not hasattr(report, "wasxfail")
        return (report.outcome, "", "") if silent and not report.failed else None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail if nothing was checked, since no law applies or the time was over."""
        nothing = all(r.status == "not applicable" for r in self.results)
        ran = self.results or self.late
        if session.exitstatus == pytest.ExitCode.OK and ran and nothing:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self) -> None:
        """Write the files, and print the tables, in the order of the lists."""
        columns, laws, cases = self.columns, list(LAWS), list(runs.NAMED)
        self.outputs.sort(key=lambda o: (columns.index(o[0]), cases.index(o[1])))
        self.results.sort(key=lambda r: laws.index(r.law))
        self.results.sort(key=lambda r: (columns.index(r.column), cases.index(r.case)))
        self.results = runs.with_suspects(self.results)
        late = f"{self.late} checks, since {self.config.option.seconds:g} s were over (--seconds)"
        called = Path(sys.argv[0])  # or a folder's __main__.py
        ours = "pytest" not in (called.stem, called.parent.name)
        program = "python -m invconv" if ours else "pytest"
        few_eager = runs.few_eager(columns, self.results)
        not_run = [*self.absent, *few_eager, *[late][: self.late]]
        if not (self.config.option.keyword or self.late):
            not_run += runs.never_called(self.results)
        what = f"{program} {shlex.join(sys.argv[1:])}", columns, self.results, not_run
        found = document(*what, agreement(self.outputs), time.monotonic() - self.start)
        strict = partial(json.dumps, indent=1, allow_nan=False)
        for name, written in (("json", strict), ("html", as_page)):
            if (path := self.config.getoption(f"--{FILES[name]}")) is not None:
                write_text(Path(path), written(found))
        show(printing.console(), found)  # last, since a reader such as head may close the pipe


_ON_A_GPU = 4  # workers; each takes some of the GPU's memory
_FILES = ("json", "html", "junitxml")
# without the user's configuration and plugins, and without pytest's that laws do not need
_PLUGINS = (
    *("invconv_conformance.plugin", "xdist", "no:cacheprovider", "no:faulthandler", "no:logging"),
    *("no:warnings", "no:threadexception", "no:unraisableexception"),
)
_QUIET = ("-q", "--no-header", "-rN", "--tb=no", "--capture=no", "--dist=loadscope")
_OWN = {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: the plugin's, and those of pytest's that are of use here."""
    for name, about in OPTIONS.items():
        parser.add_argument(f"--{name}", **about)
    parser.add_argument("-k", dest="keyword", help='pytest\'s, such as "periodic and ::inverse"')
    parser.add_argument("--junit", dest="junitxml", help="write a JUnit report here")
    workers = "processes; one per core unless --quick or few cases are chosen, or a GPU"
    parser.add_argument("--workers", type=int, help=workers)


def run(arguments: argparse.Namespace) -> int:
    """Run the laws, print the table, write the files; 1 if a law failed."""
    # XLA compiles thousands of small programs here, whose speed does not matter
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    libraries.share_the_card()
    columns, _ = runs.choose(arguments)
    paths = [Path(p).absolute() for n in _FILES if (p := getattr(arguments, n)) is not None]
    for path in paths:
        require_writable(path.parent)
    if len(set(paths)) < len(paths) or any(p.exists() and not p.is_file() for p in paths):
        raise CommandError("expected a file for each of --json, --html, --junit, each another one")
    if arguments.workers is not None and arguments.workers < 1:
        raise CommandError(f"--workers: expected at least 1, got {arguments.workers}")
    runs.load_expected(arguments)
    workers = arguments.workers or _workers(arguments, columns)
    with TemporaryDirectory(prefix="invconv-") as programs:
        # each worker takes a core, unless the user says how many
        shared = libraries.settings(1, programs) if workers > 1 else {}
        own = _OWN | {k: v for k, v in shared.items() if k not in os.environ}
        with mock.patch.dict(os.environ, own):
            status = pytest.main(_words(arguments, workers))
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status == pytest.ExitCode.NO_TESTS_COLLECTED and columns:
        why = "no test has such a name, it runs with another --mode alone, these laws say nothing "
        why += "of these cases, or --seconds were over"
        raise CommandError(f"nothing was checked: {why}")
    return 1 if status == pytest.ExitCode.TESTS_FAILED else 2 * (status != 0)


def _words(arguments: argparse.Namespace, workers: int) -> list[str]:
    ini = SUITE.with_name("pytest.ini")
    found = [str(SUITE), f"--rootdir={ini.parent}", "-c", str(ini), *_QUIET]
    found += [f"-p{name}" for name in _PLUGINS]
    for name in (*OPTIONS, "junitxml"):
        value = getattr(arguments, name.replace("-", "_"))
        if name in ("expected-failures", *_FILES) and value is not None:
            value = Path(value).absolute()
        name = FILES.get(name, name)
        if isinstance(value, bool):
            found += [f"--{name}"] * value
        elif value is not None:
            found.append(f"--{name}={','.join(value) if isinstance(value, tuple) else value}")
    found += ["-k", arguments.keyword] if arguments.keyword is not None else []
    return found + ([f"--numprocesses={workers}"] if workers > 1 else [])


def _workers(arguments: argparse.Namespace, columns: list[Column]) -> int:
    groups = {(c.column.library, c.case) for c in runs.checks(columns, quick=arguments.quick)}
    slow = any(column.library in COMPILING_EAGERLY for column in columns)
    if arguments.keyword is not None or len(groups) <= (2 if slow else 20):
        return 1
    on_gpu = any(column.device.startswith("cuda") for column in columns)
    return min(os.cpu_count() or 1, _ON_A_GPU if on_gpu else sys.maxsize)
