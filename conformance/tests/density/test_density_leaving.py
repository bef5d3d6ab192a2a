"""How many samples leave the range is counted, and printed for flows with and without a floor."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from invconv_benchmarks.density.compare import floors  # noqa: E402
from invconv_benchmarks.density.evaluation import leaving  # noqa: E402
from invconv_benchmarks.density.evaluation.leaving import Leaving  # noqa: E402


def test_each_number_and_sample_is_counted_once() -> None:
    samples = torch.full((6, 1, 2, 2), 0.5)
    samples[0, 0, 0, 0] = 1.0  # the range is half open
    samples[1, 0, 0, :] = -3.0
    samples[2, 0, 0, 0], samples[2, 0, 0, 1] = math.nan, 7.0
    samples[3, 0, 1, 1] = -math.inf
    samples[4, 0, 1, 1] = 0.0
    expected = Leaving(6, 24, 2, 2, 1, 2, 4, 7.0)
    assert leaving.count(samples) == expected
    assert leaving.count(samples[:3]) + leaving.count(samples[3:]) == expected


def test_floors_are_trained_and_their_samples_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leaving, "_AT_A_TIME", 4)
    given = ["--preset", "digits", "--mixing", "plain", "--steps", "2", "--count", "10"]
    floors.main([*given, "--out", str(tmp_path)])
    lines = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["scale_floor"] == ["0", "0.5"]
    assert lines["samples not finite"] == ["0", "0"]
    assert lines["bits/dim, tiles held out"][0] != lines["bits/dim, tiles held out"][1]
    assert all(0 <= int(n) <= 10 for n in lines["samples that leave [0, 1)"])
    assert {path.name for path in tmp_path.iterdir()} == {"plain-0", "plain-0.5"}
