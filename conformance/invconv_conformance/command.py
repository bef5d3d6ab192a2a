"""``invconv conformance``: a short front for pytest with `invconv_conformance.plugin`."""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest

from invconv.arrays.errors import CommandError
from invconv_conformance import plugin
from invconv_conformance.arguments import require_writable
from invconv_conformance.libraries.environment import settings, share_the_card
from invconv_conformance.libraries.table import COMPILING_EAGERLY, Column
from invconv_conformance.run import checks, choose, load_expected

_ON_A_GPU = 4  # workers, each of which takes some of its memory for itself
_FILES = ("json", "html", "junitxml")
# no configuration and no plugin of the user's, and of pytest's own none that laws can do without
_PLUGINS = (
    *("invconv_conformance.plugin", "xdist", "no:cacheprovider", "no:faulthandler", "no:logging"),
    *("no:warnings", "no:threadexception", "no:unraisableexception"),
)
_QUIET = ("-q", "--no-header", "-rN", "--tb=no", "--capture=no", "--dist=loadscope")
_OWN = {"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: the plugin's, and those of pytest's that are of use here."""
    for name, about in plugin.OPTIONS.items():
        parser.add_argument(f"--{name}", **about)
    parser.add_argument("-k", dest="keyword", help='pytest\'s, such as "periodic and ::inverse"')
    parser.add_argument("--junit", dest="junitxml", help="write a JUnit report here")
    workers = "processes; one per core unless --quick or few cases are chosen, or a GPU"
    parser.add_argument("--workers", type=int, help=workers)


def run(arguments: argparse.Namespace) -> int:
    """Run the laws, print the table, write the files; 1 if a law failed."""
    # XLA compiles thousands of small programs here; how fast they run does not matter
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    share_the_card()
    columns, _ = choose(arguments)
    _require_places(arguments)
    if arguments.workers is not None and arguments.workers < 1:
        raise CommandError(f"--workers: expected at least 1, got {arguments.workers}")
    load_expected(arguments)
    workers = arguments.workers or _workers(arguments, columns)
    with TemporaryDirectory(prefix="invconv-") as programs:
        # each worker takes a core, unless the user says how many
        shared = settings(1, programs) if workers > 1 else {}
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
    here = Path(__file__).parent
    found = [str(plugin.SUITE), f"--rootdir={here}", "-c", str(here / "pytest.ini"), *_QUIET]
    found += [f"-p{name}" for name in _PLUGINS]
    for name in (*plugin.OPTIONS, "junitxml"):
        value = getattr(arguments, name.replace("-", "_"))
        if name in ("expected-failures", *_FILES) and value is not None:
            value = Path(value).absolute()
        name = plugin.FILES.get(name, name)
        if isinstance(value, bool):
            found += [f"--{name}"] * value
        elif value is not None:
            found.append(f"--{name}={','.join(value) if isinstance(value, tuple) else value}")
    found += ["-k", arguments.keyword] if arguments.keyword is not None else []
    return found + ([f"--numprocesses={workers}"] if workers > 1 else [])


def _require_places(arguments: argparse.Namespace) -> None:
    paths = [Path(p).absolute() for n in _FILES if (p := getattr(arguments, n)) is not None]
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"there is no folder {path.parent} to write {path.name} in")
        require_writable(path.parent)
    if len(set(paths)) < len(paths) or any(p.exists() and not p.is_file() for p in paths):
        raise CommandError("expected a file for each of --json, --html, --junit, each another one")


def _workers(arguments: argparse.Namespace, columns: list[Column]) -> int:
    groups = {(c.column.library, c.case) for c in checks(columns, quick=arguments.quick)}
    slow = any(column.library in COMPILING_EAGERLY for column in columns)
    if arguments.keyword is not None or len(groups) <= (2 if slow else 20):
        return 1
    on_gpu = any(column.device.startswith("cuda") for column in columns)
    return min(os.cpu_count() or 1, _ON_A_GPU if on_gpu else sys.maxsize)
