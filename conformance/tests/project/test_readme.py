"""What the README shows runs, and says what the code says."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import invconv as ic
from invconv._cli import main

jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).parents[3]
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
    return [
        pytest.param(
            name, i, marks=[pytest.mark.slow] * (name in ROOMS and any(map(code.count, long)))
        )
        for name in FILES
        for i, code in enumerate(examples(name))
    ]


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
    assert main(["diagnose", "--example", "authors", "--grid", "32", "32"]) == 0
    assert capsys.readouterr().out.strip() == report
    assert main(["diagnose", "--example", "growth"]) == 0
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


def test_source_that_the_paper_table_names_exists() -> None:
    text = TEXTS["invconv/README.md"]
    table = text[text.index("## The paper, in the code") :]
    named = re.findall(r"`(invconv/[\w/]+\.py)`", table)
    assert len(named) >= 8
    for path in named:
        assert (ROOT / path).is_file(), path
