"""Faults in how threads wait for each other, planted into the source one at a time.

They are found in the text: every barrier is left out, every memory order is weakened, every wait is
left out or ends a step early, every progress is published never or a step early, the tickets are
taken without an atomic operation or not at all. (And shared memory is left as it is found.) Each
must be caught: as a race, a wait for ever, a barrier that not all reach, another result, or (blocks
that no longer go on together) more steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from invconv.kernels.cuda.source import sources
from invconv_conformance.cuda.build import Builder, RunError
from invconv_conformance.cuda.jobs import Job, Result

_BARRIER = re.compile(r"__syncthreads\(\);")
_ORDER = re.compile(r'"(acquire|release)\.gpu"')
_WAIT = re.compile(r"\bwait\((?P<flag>.*), (?P<value>[^,\n]*)\);")
_PUBLISH = re.compile(r"\bpublish\((?!int)(?P<flag>.*), (?P<value>[^,\n]*)\);")
_TICKET = re.compile(r"atomicAdd\((?P<counter>\w+), 1\)")
_ZEROS = re.compile(r"X\[n\] = 0;")
_CONSTANTS = {"LEVELS_DONE": "ALL_DONE", "ALL_DONE": "LEVELS_DONE"}  # each instead of the other
_SECONDS = 60  # of a run that may never end
_WORDS = ("__syncthreads(", "atomicAdd(", "wait(", "publish(", "acquire", "release")


@dataclass(frozen=True)
class Fault:
    """A change of the source.

    Attributes
    ----------
    what, file : str
    line : int
    texts : dict
        The sources with the change.
    """

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
    spoilt = {(fault.file, fault.line) for fault in planted()}
    found = []
    for file, text in sources().items():
        for number, line in enumerate(text.splitlines(), start=1):
            code = line.partition("//")[0]
            defined = code.startswith("DEVICE") and '"' not in code
            if any(word in code for word in _WORDS) and not defined:
                found.append((file, number))
    return [f"{file}:{number}" for file, number in found if (file, number) not in spoilt]


def _changes(text: str) -> Iterator[tuple[int, int, str, str]]:
    for found in _BARRIER.finditer(text):
        yield *found.span(), "no barrier", ";"
    for found in _ORDER.finditer(text):
        yield *found.span(), f"{found[1]}: no order", '"relaxed.gpu"'
        yield *found.span(), f"{found[1]}: of a block only", f'"{found[1]}.cta"'
    for found in _WAIT.finditer(text):
        yield *found.span(), "no wait", ";"
        less = _CONSTANTS.get(found["value"], f"{found['value']} - 1")
        yield *found.span("value"), "waits too short", less
    for found in _PUBLISH.finditer(text):
        yield *found.span(), "never published", ";"
        more = _CONSTANTS.get(found["value"], f"{found['value']} + 1")
        if found["value"] != "ALL_DONE":  # that all is done cannot be said too early
            yield *found.span("value"), "published too early", more
    for found in _ZEROS.finditer(text):
        yield *found.span(), "no zeros around a band", ";"
    for found in _TICKET.finditer(text):
        yield *found.span(), "a ticket not taken at once", f"(*{found['counter']})++"
        yield *found.span(), "no ticket", "(int)blockIdx.x"


def too_small(job: Job) -> dict[str, Job]:
    """Return a job with a number less of each kind of memory: AddressSanitizer must object."""
    launch = job.launch
    return {
        "shared memory": replace(
            job, launch=replace(launch, shared=launch.shared - job.y.itemsize)
        ),
        "counters": replace(job, launch=replace(launch, counters=launch.counters - 1)),
    }


def caught(fault: Fault, watchers: Sequence[Watcher]) -> str | None:
    """Return how the fault shows, or None: on a busy machine a race may not happen at once."""
    for watcher in (*watchers, *watchers, *watchers):
        if found := watcher.look(fault):
            return found
    return None


@dataclass(frozen=True, eq=False)
class Watcher:
    """Jobs of the same constants, and what they give with the source as it is."""

    builder: Builder
    jobs: list[Job]
    sound: list[Result]

    @classmethod
    def of(cls, builder: Builder, jobs: list[Job]) -> Watcher:
        """Run the source as it is."""
        return cls(builder, jobs, builder.solve(jobs))

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
