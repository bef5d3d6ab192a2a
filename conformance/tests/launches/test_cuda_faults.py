"""The proof of `invconv_conformance.cuda` sees faults in how the kernel's threads wait.

Barriers, waits, memory orders, flags and tickets are found in the source, and each is left out,
weakened or a step early. Each must show: as a race, a wait for ever, a barrier that not all
reach, another result, or (blocks that no longer go on together) more steps.
"""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from invconv.kernels.cuda.compile import sources
from invconv_conformance.cuda import solves
from invconv_conformance.cuda.proof import needs_compiler
from invconv_conformance.cuda.solves import Builder, CudaResult, CudaSolve, RunError

Fault = tuple[str, dict[str, str]]  # its place and what it is, and all texts with it

_ORDER = re.compile(r'"(acquire|release)\.gpu"')
_CALL = re.compile(r"\b(?P<name>wait|publish)\((?!int).*, (?P<value>[^,\n]*)\);")
_TICKET = re.compile(r"atomicAdd\((?P<counter>\w+), 1\)")
_WHOLE = {r"__syncthreads\(\);": "no barrier", r"X\[n\] = 0;": "no zeros around a band"}
_CONSTANTS = {"LEVELS_DONE": "ALL_DONE", "ALL_DONE": "LEVELS_DONE"}  # each instead of the other
_SECONDS = 60  # of a run that may never end
_WORDS = ("__syncthreads(", "atomicAdd(", "wait(", "publish(", "acquire", "release")


def planted() -> Iterator[Fault]:
    texts = sources()
    for file, text in texts.items():
        for start, end, what, new in sorted(changes(text)):
            line = text.count("\n", 0, start) + 1
            yield f"{file}:{line} {what}", texts | {file: text[:start] + new + text[end:]}


def changes(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield where a fault begins and ends, what it is, and what takes its place."""
    for pattern, what in _WHOLE.items():
        for found in re.finditer(pattern, text):
            yield *found.span(), what, ";"
    for found in _ORDER.finditer(text):
        yield *found.span(), f"{found[1]}: no order", '"relaxed.gpu"'
        yield *found.span(), f"{found[1]}: of a block only", f'"{found[1]}.cta"'
    for found in _CALL.finditer(text):
        value, waits = found["value"], found["name"] == "wait"
        yield *found.span(), "no wait" if waits else "never published", ";"
        what = "waits too short" if waits else "published too early"
        if waits or value != "ALL_DONE":  # that all is done cannot be said too early
            other = _CONSTANTS.get(value, f"{value} {'-' if waits else '+'} 1")
            yield *found.span("value"), what, other
    for found in _TICKET.finditer(text):
        yield *found.span(), "a ticket not taken at once", f"(*{found['counter']})++"
        yield *found.span(), "no ticket", "(int)blockIdx.x"


def test_every_line_on_which_threads_wait_has_a_fault() -> None:
    spoilt, waits = {where.split()[0] for where, _ in planted()}, set()
    for file, text in sources().items():
        for number, line in enumerate(text.splitlines(), start=1):
            code = line.partition("//")[0]
            defined = code.startswith("DEVICE") and '"' not in code
            if any(word in code for word in _WORDS) and not defined:
                waits.add(f"{file}:{number}")
    assert waits <= spoilt


@dataclass(frozen=True, eq=False)
class Watcher:
    """Jobs of the same constants, in which faults may show."""

    builder: Builder
    jobs: list[CudaSolve]

    @functools.cached_property
    def sound(self) -> list[CudaResult]:
        return self.builder.solve(self.jobs)

    def look(self, texts: dict[str, str]) -> str | None:
        try:
            results = self.builder.solve(self.jobs, texts, _SECONDS)
        except RunError as error:
            return str(error).splitlines()[0]
        for result, sound in zip(results, self.sound, strict=True):
            if result.x.tobytes() != sound.x.tobytes():
                return "another result"
            if result.rounds > sound.rounds:
                return "takes more steps"
        return None


def _caught(fault: Fault, watchers: Sequence[Watcher]) -> str | None:
    """Return how a fault shows."""
    return next(filter(None, (w.look(fault[1]) for w in watchers)), None)


@pytest.mark.slow
@needs_compiler
def test_faults_in_the_source_are_caught(tmp_path: Path) -> None:
    races, planes = Builder(tmp_path, "races"), solves.in_volumes()
    watchers = [Watcher(races, planes), Watcher(Builder(tmp_path, "values"), planes)]
    watchers += [Watcher(races, group) for group in solves.small_jobs()]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda fault: _caught(fault, watchers), planted()))
    for (what, _), how in zip(planted(), found, strict=True):
        print(f"\n  {what}: {how or 'not caught'}", end="")
    assert None not in found
