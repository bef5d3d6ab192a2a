"""The kernel's source, compiled for this processor, and run on jobs."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from invconv.kernels.cuda.source import source
from invconv_conformance.cuda.jobs import Job, Result

HERE = Path(__file__).parent / "on_cpu"
SECONDS = 300  # after which a run has failed

Mode = Literal["values", "races", "edges"]
_FLAGS: dict[Mode, list[str]] = {
    "values": ["-O1"],
    # few small solves, and a compile each: what the compiler takes counts
    "races": ["-O0", "-fsanitize=thread"],
    "edges": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
_COMMON = ["-std=c++17", "-Wno-unknown-pragmas", "-I", str(HERE)]
_KERNEL = ["-march=native", "-ffp-contract=off", "-pthread"]
_STRICT = ["-Wall", "-Wextra", "-Werror"]
_WHAT = {
    3: "waits for ever",
    4: "a barrier that not all threads reach",
    66: "a race",
    67: "an error in memory",
}
_SANITIZERS = {
    "TSAN_OPTIONS": "halt_on_error=1 exitcode=66 report_thread_leaks=0",
    "ASAN_OPTIONS": "exitcode=67 detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


class BuildError(RuntimeError):
    """The source does not compile."""


class RunError(RuntimeError):
    """A run ended with an error: what sanitizers or `on_cpu` found."""


@dataclass(frozen=True)
class Builder:
    """Compiles for a mode, into a folder of files that are kept while this process runs.

    The modes are fibers ("values"), and threads under ThreadSanitizer ("races") or under the
    sanitizers of memory and of undefined behaviour ("edges").
    """

    folder: Path
    mode: Mode
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def solve(
        self, jobs: Sequence[Job], texts: dict[str, str] | None = None, seconds: float = SECONDS
    ) -> list[Result]:
        """Return the result of each job; all have the constants of the first.

        Other ``texts`` than the sources may be compiled. A run that takes longer has failed.
        """
        text = source(jobs[0].plan.constants, texts)
        program = self._program(text, _STRICT if texts is None else [])
        given, found = (program.with_suffix(suffix) for suffix in (".in", ".out"))
        given.write_bytes(b"".join(job.packed() for job in jobs))
        command = [*_same_addresses(), str(program), str(given), str(found)]
        environment = os.environ | _SANITIZERS
        try:
            run = subprocess.run(command, capture_output=True, env=environment, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RunError("does not end") from None
        if run.returncode:
            said = run.stderr.decode(errors="replace")
            raise RunError(f"{_WHAT.get(run.returncode, f'exit code {run.returncode}')}\n{said}")
        written, results = found.read_bytes(), []
        for job in jobs:
            result, written = job.unpack(written)
            results.append(result)
        return results

    def _program(self, text: str, warnings: list[str]) -> Path:
        with self._lock:
            blocks = "fibers" if self.mode == "values" else "threads"
            sources = [HERE / f"{name}.cpp" for name in ("main", blocks)]
            harness = [self._compiled(path.stem, "-c", path) for path in sources]
        name = hashlib.sha256(text.encode()).hexdigest()[:20]
        kernel = self.folder / f"{self.mode}-{name}.cpp"
        kernel.write_text(text, "utf-8")
        return self._compiled(name, *_KERNEL, *warnings, kernel, *harness)

    def _compiled(self, name: str, *arguments: str | Path) -> Path:
        """Compile arguments unless that was done, and return where the result is."""
        target = self.folder / f"{self.mode}-{name}"
        if target.exists():
            return target
        part = target.with_suffix(".part")
        command = ["g++", *_COMMON, *_FLAGS[self.mode], *map(str, arguments), "-o", str(part)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise BuildError(run.stderr)
        return part.rename(target)


@functools.cache
def _same_addresses() -> list[str]:
    """Return the command before a command that gives it the same addresses in each run.

    ThreadSanitizer fails where addresses are too random.
    """
    command = ["setarch", "-R"]
    if shutil.which("setarch") is None:
        return []
    return [] if subprocess.run([*command, "true"], capture_output=True).returncode else command
