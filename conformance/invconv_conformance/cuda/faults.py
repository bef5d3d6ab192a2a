"""Faults in how threads wait for each other, planted into the source one at a time.

They are found in the text: barriers, waits, memory orders, flags and tickets, each left out,
weakened or a step early. Each must be caught: as a race, a wait for ever, a barrier that not all
reach, another result, or (blocks that no longer go on together) more steps.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from invconv.kernels.cuda.compile import sources
from invconv_conformance.cuda.build import Builder, Job, Result, RunError

_ORDER = re.compile(r'"(acquire|release)\.gpu"')
_CALL = re.compile(r"\b(?P<name>wait|publish)\((?!int).*, (?P<value>[^,\n]*)\);")
_TICKET = re.compile(r"atomicAdd\((?P<counter>\w+), 1\)")
_WHOLE = {r"__syncthreads\(\);": "no barrier", r"X\[n\] = 0;": "no zeros around a band"}
_CONSTANTS = {"LEVELS_DONE": "ALL_DONE", "ALL_DONE": "LEVELS_DONE"}  # each instead of the other
_SECONDS = 60  # of a run that may never end
_WORDS = ("__syncthreads(", "atomicAdd(", "wait(", "publish(", "acquire", "release")


@dataclass(frozen=True)
class Fault:
    """A change of the source: its place, and all texts with it."""

    what: str
    file: str
    line: int
    texts: dict[str, str]


def planted() -> Iterator[Fault]:
    """Yield every fault, in the order of the text."""
    texts = sources()
    for file, text in texts.items():
        for start, end, what, new in sorted(_changes(text)):
            spoilt = text[:start] + new + text[end:]
            yield Fault(what, file, text.count("\n", 0, start) + 1, texts | {file: spoilt})


def unspoilt() -> list[str]:
    """Return the lines of code that make threads wait for each other, and have no fault."""
    spoilt = {f"{fault.file}:{fault.line}" for fault in planted()}
    waits = set()
    for file, text in sources().items():
        for number, line in enumerate(text.splitlines(), start=1):
            code = line.partition("//")[0]
            defined = code.startswith("DEVICE") and '"' not in code
            if any(word in code for word in _WORDS) and not defined:
                waits.add(f"{file}:{number}")
    return sorted(waits - spoilt)


def _changes(text: str) -> Iterator[tuple[int, int, str, str]]:
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


def caught(fault: Fault, watchers: Sequence["Watcher"]) -> str | None:
    """Return how the fault shows, or None: on a busy machine a race may not happen at once."""
    return next(filter(None, (watcher.look(fault) for watcher in [*watchers] * 3)), None)


@dataclass(frozen=True, eq=False)
class Watcher:
    """Jobs of the same constants, in which faults may show."""

    builder: Builder
    jobs: list[Job]

    @functools.cached_property
    def sound(self) -> list[Result]:
        """What the source as it is gives."""
        return self.builder.solve(self.jobs)

    def look(self, fault: Fault) -> str | None:
        """Return how a fault shows in these jobs, or None."""
        try:
            results = self.builder.solve(self.jobs, fault.texts, _SECONDS)
        except RunError as error:
            return str(error).splitlines()[0]
        for result, sound in zip(results, self.sound, strict=True):
            if result.x.tobytes() != sound.x.tobytes():
                return "another result"
            if result.rounds > sound.rounds:
                return "takes more steps"
        return None
