"""The chart of sampling times: what is run, what is extrapolated, and that it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from matplotlib.image import imread  # noqa: E402

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.evaluation import layer_sampling, sampling_chart  # noqa: E402
from invconv_benchmarks.density.evaluation.layer_sampling import Point  # noqa: E402
from invconv_benchmarks.measure import timing  # noqa: E402


@pytest.mark.parametrize("way", layer_sampling.WAYS)
def test_a_point_says_which_share_was_run(way: str) -> None:
    point = layer_sampling.measure(way, 8, count=2, patience=0.0)
    assert (point.way, point.size) == (way, 8)
    assert point.seconds > 0
    units = {layer_sampling.PIXELS: 4 * 4, layer_sampling.NUMBERS: 3 * 8 * 8}
    assert point.share == pytest.approx(1 / units.get(way, 1))


def test_the_time_of_a_share_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "seconds", lambda call: (call(), 2.0)[1])
    found = layer_sampling.measure(layer_sampling.PIXELS, 8, count=1, patience=8.0)
    assert (found.seconds, found.share, found.repeats) == (2.0 * 16 / 4, 4 / 16, 4)
    monkeypatch.setattr(layer_sampling, "_MOST", 5 * 8**2)  # five images at a time
    found = layer_sampling.measure(layer_sampling.DIAGONALS, 8, count=20, patience=1.0)
    assert (found.seconds, found.share) == (2.0 * 4, 0.25)
    found = layer_sampling.measure(layer_sampling.NUMBERS, 8, count=20, patience=4.0)
    assert found.share == pytest.approx(2 / (3 * 8 * 8 * 4))


def test_a_chart_goes_on_and_a_whole_one_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def measure(way: str, size: int, count: int) -> Point:
        asked.append((way, size))
        if len(asked) == 10:
            raise KeyboardInterrupt
        return Point(way, size, 1e-4 * len(asked) ** 3, 3, 0.5 if "pixel" in way else 1.0)

    monkeypatch.setattr(layer_sampling, "measure", measure)
    command = ["density", "sampling-chart", "--sizes", "8,16", "--out", str(tmp_path)]
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().out
    part = sampling_chart.read(tmp_path / "sampling-chart.json")
    assert len(part.points) == 9
    every = [(way, size) for size in (8, 16) for way in layer_sampling.WAYS]
    assert part.left == every[9:]
    assert main(command) == 0
    assert asked == every[:10] + every[9:]
    assert imread(tmp_path / "sampling-chart.png").shape[0] > 500
    whole = sampling_chart.read(tmp_path / "sampling-chart.json")
    assert not whole.left
    cells = sampling_chart.markdown(whole)[-1].split(" | ")
    assert len(sampling_chart.markdown(whole)) == 4 + len(layer_sampling.WAYS)
    assert cells[0] == f"| {layer_sampling.NUMBERS}"
    asked.clear()
    assert main([*command, "--sizes", "8"]) == 130  # of other sizes: all of it
    assert asked == every[:10]


@pytest.mark.parametrize(
    ("seconds", "share", "words"),
    [
        (2e-7, 1.0, "0.2 µs"),
        (0.0234, 1.0, "23 ms"),
        (90.0, 0.5, "≈ 1.5 min"),
        (2e6, 0.1, "≈ 23 d"),
    ],
)
def test_times_in_words(seconds: float, share: float, words: str) -> None:
    assert sampling_chart.cell(Point("way", 8, seconds, 1, share)) == words


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--sizes", "7"]])
def test_what_cannot_be_charted_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    assert main(["density", "sampling-chart", *arguments, "--out", str(tmp_path)]) == 2
    assert "--sizes that are even" in capsys.readouterr().err
