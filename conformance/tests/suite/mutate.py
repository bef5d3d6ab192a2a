"""Change single places of the product, drawn by a seed, and tell how many changes the tests notice.

    python -m pytest -n auto --cov --cov-context=test --junitxml=junit.xml
    python conformance/tests/suite/mutate.py --seed 7 --count 25

The first command notes which test runs which line, and how long it takes. The second changes one
place at a time in a copy of the checkout, and runs the tests of its line, the most specific first,
as many as take --seconds. A survivor is a gap of the tests, a slower way to the same numbers, or
code that nothing needs. With --tests-of FILE its tests run, ten seconds of them, on what is there.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

_SWAPS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div"
_PAIRS = [tuple(getattr(ast, word) for word in pair.split()) for pair in _SWAPS.split(", ")]
_OTHER: dict[Any, Any] = {a: b for one, two in _PAIRS for a, b in ((one, two), (two, one))}
_OTHER |= {ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult}
_QUIET = ast.Raise, ast.Assert, ast.JoinedStr  # messages
_NOT_RUN = "annotation", "returns", "decorator_list", "type_params"
_LEFT_OUT = "_cli.py", "__main__.py", "costs.py"  # glue, and numbers that choose a way


class Place(NamedTuple):
    """Bytes of a file, and what they become."""

    file: str
    line: int
    start: int
    end: int
    new: str


def _changed(node: Any) -> Iterator[Any]:
    """Yield what may stand in place of a node."""

    def other(**fields: Any) -> Any:
        again = copy.copy(node)
        vars(again).update(fields)
        return again

    match node:
        case ast.Compare(ops=[op]):
            yield other(ops=[_OTHER[type(op)]()])
        case ast.BinOp() | ast.BoolOp() if type(node.op) in _OTHER:
            yield other(op=_OTHER[type(node.op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.IfExp():
            yield other(body=node.orelse, orelse=node.body)
        case ast.Call():
            for given in node.keywords:
                yield other(keywords=[k for k in node.keywords if k is not given])
            if len(node.args) == 2:
                yield other(args=node.args[::-1])


def _inner(node: ast.AST) -> Iterator[Any]:
    """Yield a node and those in it, but for messages, types and decorators."""
    if not isinstance(node, _QUIET):
        yield node
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in _NOT_RUN:
                    yield from _inner(child)


def places(root: Path, file: str) -> Iterator[Place]:
    """Yield every change of a file."""
    raw = (root / file).read_bytes()
    lines = raw.splitlines(keepends=True)
    for node in _inner(ast.parse(raw)):
        for new in _changed(node):
            start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
            end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
            yield Place(file, node.lineno, start, end, f"({ast.unparse(new)})")


def _tests(root: Path, path: Path, junit: Path) -> tuple[dict[Any, set[str]], dict[str, Any]]:
    """Return the tests of each line, and of each test how many lines and how long."""
    from coverage import CoverageData

    tests, of_file, lines = {}, defaultdict[str, set[str]](set), Counter[str]()
    data = CoverageData(str(path))
    data.read()
    for measured in data.measured_files():
        file = os.path.relpath(measured, root)
        for line, contexts in data.contexts_by_lineno(measured).items():
            tests[file, line] = {context.partition("|")[0] for context in contexts}
            lines.update(tests[file, line])
            of_file[file] |= tests[file, line] - {""}
    for place in [place for place, names in tests.items() if "" in names]:  # run by an import
        tests[place] |= of_file[place[0]]
    known = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{str(case.get('classname')).replace('.', '/')}.py::{case.get('name')}"
        known[name] = (lines[name], float(case.get("time") or 0))
    return tests, known


def _within(seconds: float, tests: set[str], known: dict[str, Any]) -> list[str]:
    """Return the tests that run the fewest lines, as many as end in time."""
    chosen = []
    for test in sorted(tests & {*known}, key=known.__getitem__):
        if known[test][1] <= seconds:
            chosen.append(test)
            seconds -= known[test][1]
    return chosen


def outcome(folder: Path, place: Place, tests: list[str], seconds: float) -> str:
    """Run tests on a copy with a change, and tell what comes out."""
    path, before = folder / place.file, (folder / place.file).read_bytes()
    (folder / "tests.txt").write_text("\n".join(tests), encoding="utf-8")
    path.write_bytes(before[: place.start] + place.new.encode() + before[place.end :])
    words = f"-B -m pytest -x -q -p no:cacheprovider -p no:cov -m= @{folder / 'tests.txt'}".split()
    roots = [str(folder / room) for room in ("", "backends", "conformance", "benchmarks")]
    options: dict[str, Any] = {"env": os.environ | {"PYTHONPATH": os.pathsep.join(roots)}}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, *words]
    run = subprocess.Popen(command, cwd=folder, start_new_session=True, **options)
    try:
        return "caught" if run.wait(4 * seconds + 60) else "SURVIVED"
    except subprocess.TimeoutExpired:  # it does not end
        os.killpg(run.pid, signal.SIGKILL)
        return "caught"
    finally:
        path.write_bytes(before)


def main() -> None:
    """Draw, run and count."""
    parser, root = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0]), Path.cwd()
    words = {"tests-of": "", "seed": "0", "only": "invconv/**/*.py"}
    words |= {"map": ".coverage", "junit": "junit.xml"}
    numbers = {"count": 25, "seconds": 20, "workers": os.cpu_count() or 1}
    for name, default in (words | numbers).items():
        parser.add_argument(f"--{name}", default=default, type=type(default))
    asked = parser.parse_args()
    tests, known = _tests(root, asked.map, asked.junit)
    if file := asked.tests_of:
        every = {test for place, names in tests.items() if place[0] == file for test in names}
        chosen = _within(10, every, known)
        sys.exit(pytest.main(["-m=", *chosen]) if chosen else f"no test runs {file}")
    files = sorted(p.relative_to(root).as_posix() for p in root.glob(asked.only))
    changes = [p for file in files if not file.endswith(_LEFT_OUT) for p in places(root, file)]
    folders: SimpleQueue[Path] = SimpleQueue()

    def judge(place: Place) -> str:
        chosen = _within(asked.seconds, tests.get((place.file, place.line), set()), known)
        folder = folders.get()
        found = outcome(folder, place, chosen, asked.seconds) if chosen else "NOT RUN"
        old = (folder / place.file).read_bytes()[place.start : place.end].decode()
        print(f"{found}: {place.file}:{place.line} {old} -> {place.new}", flush=True)
        folders.put(folder)
        return found

    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(asked.workers) as pool:
        for n in range(asked.workers):
            left_out = shutil.ignore_patterns(".git", "__pycache__", ".mutation")
            folders.put(Path(shutil.copytree(root, Path(work, str(n)), ignore=left_out)))
        drawn = random.Random(asked.seed).sample(changes, asked.count)
        found = list(pool.map(judge, drawn))
    counts = ", ".join(f"{found.count(word)} {word}" for word in ("caught", "SURVIVED", "NOT RUN"))
    print(f"{counts}: {len(found)} of {len(changes)} places, drawn by seed {asked.seed}")


if __name__ == "__main__":
    main()
