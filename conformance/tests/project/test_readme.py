"""What the READMEs show runs, examples and commands, and says what the code says."""

import importlib
import importlib.util
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv import _cli
from tests.programs import ROOT, python
from tests.selected import slow

DOORS = tuple(
    f"benchmarks/guide/{path.name}" for path in sorted((ROOT / "benchmarks/guide").iterdir())
)
ROOMS = tuple(f"{f}/README.md" for f in ("invconv", "backends", "conformance", "benchmarks"))
FILES = ("README.md", "CONTRIBUTING.md", *DOORS, *ROOMS)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
README = TEXTS["README.md"]


def examples(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXTS[name], re.DOTALL)


def run(code: str, scope: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "an example", "exec"), scope)
    if "for step in range" in code:  # it trains, so its loss falls
        losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
        assert len(losses) >= 10
        assert losses[-1] < losses[0] - 0.1


def every_example() -> list[Any]:
    """Return (file, number); what trains, exports or differentiates compiles for seconds."""
    long = ("for step in range", "fit_to_data", "onnx.export", "jax.grad", "nnx.grad")
    longest = "class Along", "jax.value_and_grad"  # all laws in all libraries; training
    return [
        slow(name, i)
        if (name in ROOMS and any(map(code.count, long))) or any(map(code.count, longest))
        else (name, i)
        for name in FILES
        for i, code in enumerate(examples(name))
    ]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's, by the cores
@pytest.mark.parametrize(("name", "number"), every_example())
def test_example_runs(
    name: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    run(examples(name)[number], scope, capsys)
    if name not in DOORS or number > 0:
        return
    for shown in re.findall(r"```text\n(.*?)```", TEXTS[name], re.DOTALL):
        printed = capsys.readouterr().out
        assert re.sub(r"\S+e-1\d", "rounding", printed) == re.sub(r"\S+e-1\d", "rounding", shown)
    wrong = TEXTS[name].partition("## What can go wrong")[2]
    for call, sentence in re.findall(r"^\| `(.*?)` \| (.*?) \|", wrong, re.MULTILINE):
        with pytest.raises((TypeError, ValueError, UserWarning), match=re.escape(sentence)):
            eval(call, scope)


@pytest.mark.parametrize("name", FILES)
def test_links_within_the_repository_resolve(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name])
    inside = [link for link in links if not link.startswith(("http:", "https:"))]
    assert inside or name == "conformance/README.md"
    for link in inside:
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve()
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, link


def test_the_diagnoses_are_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, seeds = np.random.default_rng, itertools.count()

    def seeded(seed: Any = None) -> np.random.Generator:
        return draw(next(seeds) if seed is None else seed)

    monkeypatch.setattr(np.random, "default_rng", seeded)  # the same samples in every run
    text = TEXTS["invconv/README.md"]
    section = text[text.index("## When can an inverse be trusted?") :]
    report, table = re.findall(r"```text\n(.*?)\n```", section, re.DOTALL)[:2]
    assert _cli.main(["diagnose", "--example", "authors", "--grid", "32", "32"]) == 0
    assert capsys.readouterr().out.strip() == report
    assert _cli.main(["diagnose", "--example", "growth"]) == 0
    printed = {line[:46]: line.rstrip() for line in capsys.readouterr().out.splitlines()}
    for line in table.splitlines():
        again = printed[line[:46]].split()
        *shown, said, true, error = line.split()
        assert again[:-3] == shown
        assert again[-2:] == [true, error]
        if re.fullmatch(r"\d\.\d", said):  # on other samples
            assert float(again[-3]) == pytest.approx(float(said), abs=0.5)


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^python -m pip install .*pytest.*$", README, re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_public_name_is_mentioned() -> None:
    texts = [*TEXTS.values(), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")]
    for name in ic.__all__:  # a new operator is in the changelog; its page is made of itself
        assert any(re.search(rf"\b{name}\b", text) for text in texts), name


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
OURS = [command for command in COMMANDS if command.startswith("python -m invconv ")]
# Those that are not run as pasted: what is added, or runs in their place (a whole line).
SHORTER = {
    "python -m invconv conformance --html report.html": "--library numpy -k corner-bias",
    "python -m invconv conformance --library torch --mode aot_eager": "-k corner-bias",
    'pytest --pyargs invconv_conformance --namespace cupy -k "periodic and ::inverse" -x': "python "
    "-m pytest -p invconv_conformance.plugin --pyargs invconv_conformance --namespace numpy -k "
    "'periodic-2d and ::inverse'",
    "python -m invconv benchmark": "--quick --library numpy --shapes 1x12x16x16",
    "python -m invconv benchmark --quick": "--library numpy --shapes 1x12x16x16",
    "python -m invconv benchmark inverse": "--quick --library numpy --shapes 1x12x16x16",
    "python -m invconv density compare --quick": "--preset digits --steps 2 --mixings plain",
    "python -m invconv diagnose FILE --grid 32 32 [--picture PATH]": "python -m invconv diagnose "
    "conv.safetensors --grid 32 32 --picture picture.png",
    "python -m invconv benchmark checks": "--quick --only ActNorm",
    "python -m invconv benchmark choices": "--quick",
    "python -m invconv benchmark filters": "--quick",
    "python -m invconv benchmark first_solve": "--quick",
    "python -m invconv benchmark odd": "--quick --library numpy --seconds 0.01",
    "python -m invconv benchmark overhead --seconds 5": "--quick --seconds 0.01 --only '1x1*'",
    "python -m invconv benchmark precision": "--quick",
    "python -m invconv benchmark sampling": "--quick",
    "python -m invconv benchmark silent_error": "--quick",
    "python -m invconv benchmark survey": "--count 3",
    "python -m invconv benchmark threads": "--quick --seconds 0.01",
    "python -m invconv benchmark growth": "--quick --library numpy --seconds 0.01",
}
EXAMPLES = [command for command in OURS if command.startswith("python -m invconv example ")]
# Those of our own that are not run at all, and why. What installs, tests or publishes never is.
LEFT_OUT = {
    **dict.fromkeys(EXAMPLES, "test_commands.py runs every example"),
    "python -m invconv conformance --device cuda": "needs a CUDA device",
    "python -m invconv benchmark inverse --device cuda": "needs a CUDA device",
    "python -m invconv conformance --namespace some.module": "test_runner.py runs it",
    "python -m invconv docs": "test_docs.py builds the site",
}


def test_exceptions_are_of_commands_that_are_there() -> None:
    assert len(COMMANDS) >= 35
    assert set(SHORTER) | set(LEFT_OUT) <= set(COMMANDS)
    assert not set(SHORTER) & set(LEFT_OUT)


def as_run(command: str) -> str:
    other = SHORTER.get(command, "")
    return other if other.startswith("python ") else f"{command} {other}".strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(as_run(command))
    assert (program, words[0]) == ("python", "-m")
    if words[1] == "invconv":
        module = importlib.import_module(_cli.COMMANDS[words[2]][0])
        monkeypatch.setattr(module, "run", lambda arguments: 0)
        assert _cli.main(words[2:]) == 0
    else:
        assert importlib.util.find_spec(words[1]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({*SHORTER} | {*OURS} - {*LEFT_OUT}))
def test_command_runs(command: str, tmp_path: Path) -> None:
    ic.save(ic.Conv1x1.init(3, rng=np.random.default_rng(0)), tmp_path / "conv.safetensors")
    _, *words = shlex.split(as_run(command))
    assert python(*words, cwd=tmp_path).stdout
