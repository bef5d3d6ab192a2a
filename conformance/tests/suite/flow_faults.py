"""Plant faults into flows, one at a time, and show that a named test of `tests.flows` finds each.

``python conformance/tests/suite/flow_faults.py`` prints what the test said, and exits with 1 if one
was not found. The faults are in ``flow_faults.toml``: conformance's laws are of operators alone.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.suite.planted_faults import ROOT, copied, plant

FLOWS = "conformance/tests/flows"


@dataclass(frozen=True)
class FlowFault:
    """A wrong line, and the test that finds it.

    Attributes
    ----------
    name : str
    file : str
        Of the core, or of an adapter: "invconv_torch/flows/split.py".
    old, new : str
        What is there once, and what takes its place.
    test : str
        Of a file in `FLOWS`, as pytest names it.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Said:
    """How a test ended: 0 if it passed, 1 if it failed, and what it printed."""

    status: int
    output: str

    @property
    def why(self) -> str:
        """The first line of the error."""
        errors = [line[2:].strip() for line in self.output.splitlines() if line[:2] == "E "]
        return errors[0] if errors else ""


def load() -> tuple[FlowFault, ...]:
    """Return the faults of the list."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tuple(FlowFault(**entry) for entry in tomllib.loads(text)["fault"])


FLOW_FAULTS = load()


def judge(fault: FlowFault) -> Said:
    """Run a fault's test on a copy of the packages with the fault."""
    with copied() as folder:
        plant(Path(folder), fault.name, fault.file, fault.old, fault.new)
        return _pytest(Path(folder), [fault.test])


@functools.cache
def judge_sound(faults: tuple[FlowFault, ...] = FLOW_FAULTS) -> Said:
    """Run the tests of some faults on a copy without one."""
    with copied() as folder:
        return _pytest(Path(folder), list(dict.fromkeys(fault.test for fault in faults)))


def _pytest(folder: Path, tests: list[str]) -> Said:
    """Run tests in a process that imports the packages from a folder."""
    paths = [folder, *(ROOT / name for name in ("conformance", "benchmarks"))]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "--tb=short"),
            *("-p", "no:xdist", "-p", "no:cacheprovider"),
            *("-o", f"pythonpath={' '.join(map(str, paths))}"),
            *(f"{FLOWS}/{test}" for test in tests),
        ],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Said(done.returncode, done.stdout + done.stderr)


def main() -> int:
    """Judge every fault; 0 if all are found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default="*", help='a pattern, such as "no floor *"')
    pattern = parser.parse_args().names
    chosen = tuple(f for f in FLOW_FAULTS if fnmatch.fnmatchcase(f.name, pattern))
    sound = judge_sound(chosen)
    if sound.status:
        print("the tests fail without a fault:", sound.output)
        return 1
    found = 0
    for fault in chosen:
        said = judge(fault)
        found += said.status == 1
        print(
            f"{fault.name}: {fault.test}: {said.why if said.status == 1 else 'NOT FOUND'}",
            flush=True,
        )
    print(f"{found} of {len(chosen)} found")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
