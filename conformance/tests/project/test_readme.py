"""What the README shows runs, and says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import pytest

import invconv as ic
from invconv._cli import main

jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(EXAMPLES[number], f"README.md example {number + 1}", "exec"), scope)
    if "for step in range" in EXAMPLES[number]:  # it trains, so its loss falls
        losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
        assert len(losses) >= 10
        assert losses[-1] < losses[0] - 0.1


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2
    first_screen = "\n".join(README.splitlines()[:60])
    assert "pip install" in first_screen
    for word in ("numpy", "torch", "jax"):
        assert word in first_screen


def test_the_diagnoses_are_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    section = README[README.index("## When can an inverse be trusted?") :]
    report, table = re.findall(r"```text\n(.*?)\n```", section, re.DOTALL)[:2]
    assert main(["diagnose", "--example", "authors", "--grid", "32", "32"]) == 0
    assert capsys.readouterr().out.strip() == report
    assert main(["diagnose", "--example", "growth"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in table.splitlines() if line not in printed] == []


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^python -m pip install .*pytest.*$", README, re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_public_name_is_mentioned() -> None:
    for name in ic.__all__:
        assert re.search(rf"\b{name}\b", README), name


def test_source_that_the_paper_table_names_exists() -> None:
    table = README[README.index("## The paper, in the code") :]
    named = re.findall(r"`(invconv/[\w/]+\.py)`", table)
    assert len(named) >= 8
    for path in named:
        assert (ROOT / path).is_file(), path
