"""What a comparison of density models says of its numbers, and what its README shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from invconv_benchmarks.density.compare import readme, report, result, summary
from invconv_benchmarks.density.compare.outcome import Job, Outcome
from invconv_benchmarks.density.evaluation.round_trip import Trip
from invconv_benchmarks.density.recipes.preset import load_preset

ROOT = Path(__file__).parents[3]


def outcomes(**by_mixing: list[list[float]]) -> tuple[list[Job], dict[str, Outcome]]:
    """Return the jobs and outcomes of runs with these bits/dim of two tiles, seed by seed."""
    jobs, found = [], {}
    for mixing, seeds in by_mixing.items():
        for seed, bits in enumerate(seeds):
            job = Job(f"{mixing}{seed}", load_preset("digits").recipe(mixing, seed))
            jobs.append(job)
            error = None if bits else "step 3: layer a has a non-finite output"
            found[job.name] = Outcome(error, 5, bits=bits or None, seconds_per_step=0.1)
    return jobs, found


def said(**by_mixing: list[list[float]]) -> list[str]:
    jobs, found = outcomes(**by_mixing)
    return summary.findings(summary.rows(jobs, found), [])


def test_what_is_said_follows_the_numbers_whichever_way_they_come_out() -> None:
    plain = [[3.0, 4.0], [3.1, 4.1], [3.2, 4.2]]
    below = [[b - 0.05 - 0.001 * n for b in bits] for n, bits in enumerate(plain)]
    above = [[b + 0.2 + 0.01 * n for b in bits] for n, bits in enumerate(plain)]
    mixed = [[b + d for b in bits] for d, bits in zip((0.01, -0.02, 0.0), plain, strict=True)]
    found = said(plain=plain, emerging=below, periodic=above, qr=mixed)
    assert found == [
        "QR 1×1: level with plain, -0.003 ± 0.015 over 3 seeds (± 0.000 over the test tiles), "
        "lower in 1 of them.",
        "emerging 3×3: below plain in every seed, -0.051 ± 0.001 over 3 seeds (± 0.000 over the "
        "test tiles).",
        "periodic 3×3: above plain in every seed, +0.210 ± 0.010 over 3 seeds (± 0.000 over the "
        "test tiles).",
    ]
    _, one = said(plain=plain[:1], emerging=[[2.9, 4.0]])
    assert one.startswith("emerging 3×3: 0.050 bits/dim below plain in one seed (± 0.050 over")


def test_a_run_that_stopped_is_reported_and_its_seed_is_left_out_of_pairs() -> None:
    jobs, found = outcomes(plain=[[3.0, 4.0], [3.1, 4.1]], periodic=[[3.5, 4.5], []])
    rows = summary.rows(jobs, found)
    assert rows[1].difference is not None
    assert rows[1].difference.each == [0.5]
    assert rows[1].runs[1].bits is None
    sentences = summary.findings(rows, [])
    expected = "periodic 3×3, seed 1, stopped: step 3: layer a has a non-finite output."
    assert expected in sentences


def test_one_test_tile_and_trips_without_a_finite_number_are_no_error() -> None:
    (one,) = said(plain=[[3.0]], emerging=[[2.9]])[1:]
    assert one == "emerging 3×3: 0.100 bits/dim below plain in one seed (one test tile)."
    jobs, found = outcomes(plain=[[3.0, 4.0]])
    lost = Trip(2, 0, 0, 0, 0, non_finite=2, numbers_outside=None, error=None, bound=None,
                share=None, returned=0)  # fmt: skip
    found["plain0"] = replace(found["plain0"], images=lost, samples=lost)
    images, samples = summary.findings(summary.rows(jobs, found), [])[-2:]
    assert images.endswith("0 of 2 test tiles come back from their noise within the bound of "
                           "float32's rounding.")  # fmt: skip
    assert "of 2, 2 are not finite" in samples


def test_learning_rates_are_compared_at_each_ones_best() -> None:
    entries = [
        result.Rate(m, rate, 0, bits, error)
        for m, rate, bits, error in (
            ("plain", 0.01, 3.80, None), ("plain", 0.03, 3.75, None), ("plain", 0.1, 3.9, None),
            ("emerging", 0.003, 3.8, None), ("emerging", 0.01, 3.74, None),
            ("emerging", 0.03, None, "step 9: layer a has a non-finite output"),
        )
    ]  # fmt: skip
    assert summary.best(entries) == {"plain": (3.75, 0.03), "emerging": (3.74, 0.01)}
    (stopped,) = summary.findings([], entries)
    expected = (
        "Stopped in the sweep, emerging 3×3 at 0.03: step 9: layer a has a non-finite output."
    )
    assert stopped == expected
    cells = report.by_rate(entries, [0.003, 0.01, 0.03, 0.1])
    assert cells == {
        "plain": ["–", "3.800", "3.750*", "3.900"],
        "emerging": ["3.800", "3.740*", "stopped", "–"],
    }


def test_the_readme_shows_the_committed_comparison() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert readme.updated(text) == text
    assert (ROOT / "benchmarks" / "results" / readme.committed().invconv).is_dir()
    for path in re.findall(r"\((benchmarks/results/[^)]*density[^)]*)\)", text):
        assert (ROOT / path).is_file()
    with pytest.raises(ValueError, match="expected the marks <!-- density table -->"):
        readme.updated("nothing")
