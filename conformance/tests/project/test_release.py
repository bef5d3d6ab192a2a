"""The results of a version stay where they were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from invconv_benchmarks.results import committed


def test_results_of_the_newest_version_that_has_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("0.9.0/a-1.json", "0.10.0/a-2.json", "0.10.0/a-3.json", "0.11.0/b.json"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(committed, "RESULTS", tmp_path)
    assert [path.name for path in committed.newest("a-*.json")] == ["a-2.json", "a-3.json"]
    assert committed.newest("c-*.json") == []
