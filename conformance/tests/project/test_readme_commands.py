"""Every shell command of the READMEs is accepted, and runs: as pasted, or with less work to do."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import invconv as ic
from invconv import _cli
from tests.programs import python
from tests.project.test_readme import ROOT, TEXTS

PIP, PYTEST, CUDA = "test_packaging.py installs", "it is these tests", "needs a CUDA device"
# Those that are not run as pasted: what is added, or runs in their place (a whole line).
SHORTER = {
    "python -m invconv conformance --html report.html": "--library numpy -k corner-bias",
    "python -m invconv conformance --library torch --mode aot_eager": "-k corner-bias",
    'pytest --pyargs invconv_conformance --namespace cupy -k "periodic and inverse" -x': "python "
    "-m pytest -p invconv_conformance.plugin --pyargs invconv_conformance --namespace numpy -k "
    "'periodic-2d and inverse'",
    "python -m invconv benchmark --quick": "--library numpy --shapes 1x12x16x16",
    "python -m invconv benchmark inverse": "--quick --library numpy --shapes 1x12x16x16",
    "python -m invconv density compare --quick": "--preset digits --steps 2 --mixings plain",
    "python -m invconv example folder --path FOLDER": "python -m invconv example folder",
    "python -m invconv diagnose FILE --grid 32 32 [--picture PATH]": "python -m invconv diagnose "
    "conv.safetensors --grid 32 32 --picture picture.png",
    "python -m invconv benchmark checks": "--quick --only ActNorm",
    "python -m invconv benchmark choices": "--quick",
    "python -m invconv benchmark filters": "--quick",
    "python -m invconv benchmark first_solve": "--quick",
    "python -m invconv benchmark odd": "--quick --library numpy --seconds 0.01",
    "python -m invconv benchmark overhead --seconds 5": "--quick --seconds 0.01 --only '1x1*'",
    "python -m invconv benchmark precision": "--quick",
    "python -m invconv benchmark silent_error": "--quick",
    "python -m invconv benchmark threads": "--quick --seconds 0.01",
    "python -m invconv benchmark growth": "--quick --library numpy --seconds 0.01",
}
# Those that are not run at all, and why.
LEFT_OUT = {
    'python -m pip install -e ".[all]"': PIP,
    'python -m pip install -e ".[test]"': PIP,
    'python -m pip install -e ".[density]"': PIP,
    'python -m pip install "invconv[conformance,jax,torch]"': PIP,
    "python -m pytest -n auto --dist worksteal": PYTEST,
    "python -m pytest -n auto --dist worksteal -m slow": PYTEST,
    "python -m pytest conformance/tests/golden": PYTEST,
    "python -m pytest conformance/tests/launches": PYTEST,
    "python -m pytest conformance/tests/suite/test_mutation.py -m slow": PYTEST,
    'python -m pytest conformance/tests/suite/test_planted_faults.py -m "" -rA': PYTEST,
    "python -m pytest -m gpu": CUDA,
    "python -m pytest conformance/tests/fuzz --hypothesis-profile=long": "hours",
    "python -m invconv conformance --device cuda": CUDA,
    "python -m invconv benchmark inverse --device cuda": CUDA,
    "python -m invconv conformance --namespace some.module": "test_namespaces.py runs it",
    "python -m invconv docs": "test_docs.py builds the site",
    "python -m invconv_benchmarks.report.readme": "it writes the README, which a test compares",
    "python -m invconv_conformance.cuda": ".ci/run runs it",
}


def commands(text: str) -> list[str]:
    """Return what a README has a reader type: lines of shell, and code in sentences."""
    found: list[str] = []
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            found += line.split(" #")[0].removeprefix("$ ").split("&&")
    sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += re.findall(r"`(python [^`]+)`", sentences)
    return [" ".join(one.split()) for one in found if one.strip()]


COMMANDS = list(dict.fromkeys(one for text in TEXTS.values() for one in commands(text)))


def test_exceptions_are_of_commands_that_are_there() -> None:
    assert len(COMMANDS) >= 35
    assert set(SHORTER) | set(LEFT_OUT) <= set(COMMANDS)
    assert not set(SHORTER) & set(LEFT_OUT)


def as_run(command: str) -> str:
    other = SHORTER.get(command, "")
    return other if other.startswith("python ") else f"{command} {other}".strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options exist, and what they are of; nothing runs."""
    program, *words = shlex.split(as_run(command))
    assert program == "python"
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file()
    elif words[1] == "invconv":
        module = importlib.import_module(_cli.COMMANDS[words[2]][0])
        monkeypatch.setattr(module, "run", lambda arguments: 0)
        assert _cli.main(words[2:]) == 0
    else:
        assert importlib.util.find_spec(words[1]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in LEFT_OUT])
def test_command_runs(command: str, tmp_path: Path) -> None:
    ic.save(ic.Conv1x1.init(3, rng=np.random.default_rng(0)), tmp_path / "conv.safetensors")
    _, *words = shlex.split(as_run(command))
    words = [str(ROOT / word) if word.startswith("conformance/") else word for word in words]
    assert python(*words, cwd=tmp_path).stdout
