"""Benchmark results: statistics, refused files, comparisons, limits, the README's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invconv_benchmarks import compare, fits, limits, page, plots, readme, result, spread, tables
from invconv_benchmarks.collect import Collector
from invconv_benchmarks.suites import GROUPS, LIMIT_SHAPES, SUITES, select

ROOT = Path(__file__).parents[2]
HEAD = {"suite": "inverse", "map": "corner 2", "shape": (64, 12, 16, 16), "axis": ""}
PLACE = {"library": "numpy", "device": "cpu", "mode": "eager"}


def row(contender: str, role: str, does: str, samples: list[float], **changes: Any) -> Any:
    times = {"plan": 1e-3, "first": 2e-3, "calls": 1, "samples": samples, "error": ""}
    return {"contender": contender, "role": role, "does": does, **PLACE, **times} | changes


def message(rows: list[Any], **changes: Any) -> Any:
    return {"group": HEAD | {"dtype": "float32"} | changes, "rows": rows, "error": ""}


def samples(center: float, noise: float = 0.01, count: int = 30, seed: int = 0) -> list[float]:
    factors = 1 + noise * np.random.default_rng(seed).standard_normal(count)
    return [float(center * f) for f in factors]


def document(inverse: float = 1.3e-3, noise: float = 0.01, seed: int = 0) -> Any:
    found = Collector()
    ceiling = {"library": "numpy", "device": "cpu", "dtype": "float32"}
    found.add("ceiling", ceiling | {"gemm_flops": 1e11, "copy_bytes": 1e10}, 1, memory=False)
    for number in range(2):
        parts = [
            row("invconv forward", "ours", "forward", samples(1.1e-3, noise, seed=seed + number)),
            row("invconv inverse", "ours", "inverse", samples(inverse, noise, seed=seed + 9)),
            row("im2col", "plain", "forward", samples(1e-3, noise, seed=seed + 20 + number)),
            row("slow one", "peer", "inverse", samples(1.0, noise, 2)),
            row("absent one", "peer", "inverse", [], plan=None, first=None, error="not installed"),
        ]
        found.add("group", message(parts), 1, memory=False)
    peak = {"first": 10**6, "second": 5 * 10**5, "residual": 1e-7}
    seen = [
        row("invconv inverse", "ours", "inverse", []) | peak,
        row("slow one", "peer", "inverse", []) | peak,
    ]
    found.add("group", message(seen), 2, memory=True)
    for n in (4, 8, 16, 32):
        for does, power in (("forward", 1.0), ("inverse", 1.5)):
            part = [row(f"invconv {does}", "ours", does, [1e-6 * n ** (2 * power)] * 3)]
            place = {"suite": "scaling", "shape": (1, 3, n, n), "axis": "pixels"}
            found.add("group", message(part, **place), 1, memory=False)
    rows = found.rows()
    exponents = fits.exponents(rows)
    return {
        "schema": result.SCHEMA,
        "invconv": "0.1.0",
        "date": "2026-01-01T00:00:00+00:00",
        "command": "python -m invconv benchmark <inverse>",
        "seconds": 1.0,
        "complete": True,
        "quick": False,
        "passes": 2,
        "environment": {
            "cpu": "a processor",
            "cores": 2,
            "memory_bytes": 2**34,
            "gpus": [],
            "platform": "Linux",
            "python": "3.11",
            "versions": {"numpy": "2", "torch": "2", "jax": "0"},
            "commit": "abc",
        },
        "load": {"start": 0.1, "end": 9.0},
        "not_run": ["CuPy: not installed"],
        "pools": {},
        "ceilings": list(found.ceilings.values()),
        "rows": rows,
        "exponents": exponents,
        "limits": limits.verdicts(rows, exponents),
    }


def written(folder: Path, **options: Any) -> tuple[Path, Any]:
    path = folder / "result.json"
    result.write(path, document(**options))
    return path, result.read(path)


def named(rows: list[Any], contender: str) -> Any:
    return next(r for r in rows if r["contender"] == contender and not r["axis"])


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    path, read = written(tmp_path)
    inverse = named(read["rows"], "invconv inverse")
    assert inverse["against"] == "im2col"
    assert inverse["low"] <= inverse["ratio"] <= inverse["high"]
    assert inverse["ratio"] == pytest.approx(1.3, rel=0.02)
    assert [len(p) for p in inverse["passes"]] == [30, 30]
    assert inverse["memory"] == {"first": 10**6, "second": 5 * 10**5}
    assert 0 < inverse["roofline"] < 1
    assert named(read["rows"], "absent one")["error"] == "not installed"
    assert not list(tmp_path.glob(".*"))
    assert result.checksum(read) == json.loads(path.read_text())["checksum"]


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    text = path.read_text()
    for length in (0, 1, len(text) // 2, len(text) - 3):
        path.write_text(text[:length])
        with pytest.raises(ValueError, match="the file is cut off or damaged"):
            result.read(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cores": 2', '"cores": 64', "the checksum does not match, so the file was changed"),
        ('"verdict": "miss"', '"verdict": "pass"', "the checksum does not match"),
        ("invconv-benchmark/1", "invconv-benchmark/9", "expected a result of schema"),
        ('"seconds": 1.0', '"seconds": NaN', "expected finite numbers"),
    ],
)
def test_a_file_that_was_changed_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path, _ = written(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        result.read(path)


def test_a_sealed_file_with_wrong_contents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    wrong = document()
    wrong["rows"][0]["median"] *= 2
    result.write(path, wrong)
    with pytest.raises(ValueError, match="the median is not that of its samples"):
        result.read(path)
    wrong = document()
    del wrong["rows"][0]["passes"]
    result.write(path, wrong)
    with pytest.raises(ValueError, match=r"not of schema .* at rows/0"):
        result.read(path)
    with pytest.raises(ValueError, match="there is no such file"):
        result.read(tmp_path / "nothing.json")
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected a result of schema"):
        result.read(path)


def test_ratio_of_samples_that_drift_together() -> None:
    drift = np.linspace(1, 3, 40)
    a, b = drift * 2 * np.asarray(samples(1, 0.01, 40)), drift * np.asarray(samples(1, 0.01, 40, 1))
    found = spread.ratio([a.tolist()], [b.tolist()])
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(2, rel=0.05)
    assert spread.ratio([[2.0, 4.0]], [[1.0]]) == spread.Interval(2, 2, 2)


def test_a_pass_that_differs_widens_the_interval() -> None:
    base = [samples(1, count=20, seed=1), samples(1, count=20, seed=2)]
    same = spread.ratio([samples(2), samples(2, seed=3)], base)
    other = spread.ratio([samples(2), samples(3, seed=3)], base)
    assert same.spread < 0.05
    assert other.low < 2.05
    assert other.high > 2.95
    with pytest.raises(ValueError, match="at least one sample"):
        spread.ratio([[]], [[]])


def test_what_passes_differ_by_is_found_and_stated() -> None:
    logs = 0.1 * np.random.default_rng(0).standard_normal((2000, 2))
    pairs = [([[2 * np.exp(a)], [2 * np.exp(b)]], [[1.0]] * 2) for a, b in logs]
    assert spread.between_passes(pairs) == pytest.approx(0.1, rel=0.05)
    assert spread.between_passes([([[1.0]], [[2.0]])]) == 0  # one pass tells nothing
    found = spread.ratio([[2.0] * 5] * 2, [[1.0] * 5] * 2, 0.1)
    assert found.low == pytest.approx(2 * np.exp(-0.3))
    assert found.high == pytest.approx(2 * np.exp(0.3))


def test_a_difference_holds_the_truth_where_passes_drift() -> None:
    """Each pass is off by 0.02, so that one of rounds alone would mostly leave it out."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        offsets = 0.14 + 0.02 * rng.standard_normal(3)
        ours = [(1 + d + 0.005 * rng.standard_normal(40)).tolist() for d in offsets]
        theirs = [(1 + 0.005 * rng.standard_normal(40)).tolist() for _ in offsets]
        found = spread.difference(ours, theirs)
        held += found.low <= 0.14 <= found.high
    assert held >= 90
    assert spread.difference([[3.0, 3.0, 3.0]], [[1.0, 1.0, 1.0]]) == spread.Interval(2, 2, 2)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.1])
def test_exponent_of_an_exact_power_law(power: float) -> None:
    sizes = [4.0, 16.0, 64.0, 256.0, 16e6]
    fit = spread.exponent(sizes, [3e-7 * n**power for n in sizes])
    assert fit.value == pytest.approx(power, abs=1e-9)
    assert fit.error < 1e-6
    assert (fit.start, fit.stop, fit.points) == (4, 16e6, 5)
    with pytest.raises(ValueError, match="at least three sizes"):
        spread.exponent([1, 2], [1, 2])


def test_exponents_of_a_result() -> None:
    found = {(e["does"], e["range"]): e for e in document()["exponents"]}
    assert found["forward", "all"]["value"] == pytest.approx(1)
    assert found["inverse", "all"]["value"] == pytest.approx(1.5)
    assert found["inverse", "upper half"]["points"] == 3
    assert found["inverse", "all"]["stop"] == 32**2


def test_compare_sees_changes_and_only_those(tmp_path: Path) -> None:
    before = document()
    found, notes = compare.changes(before, document(seed=50))
    assert {c.verdict for c in found} == {"same"}
    assert notes == ["1 rows not compared: not measured in one of them"]
    slow, _ = compare.changes(before, document(inverse=2e-3))
    verdicts = {c.row["contender"]: (c.measure, c.verdict) for c in slow if not c.row["axis"]}
    assert verdicts["invconv inverse"] == ("ratio", "slower")
    assert verdicts["invconv forward"] == ("ratio", "same")
    assert verdicts["im2col"] == ("time", "same")
    fast, _ = compare.changes(document(inverse=2e-3), before)
    assert "1 faster, 0 slower" in compare.summary(fast)
    noisy, _ = compare.changes(document(noise=0.5), document(inverse=1.5e-3, noise=0.5))
    assert {c.verdict for c in noisy} == {"same"}


def test_compare_of_two_machines_compares_ratios_alone() -> None:
    other = document()
    other["environment"]["cpu"] = "another processor"
    other["rows"] = [r for r in other["rows"] if r["contender"] != "slow one"]
    found, notes = compare.changes(document(), other)
    assert {c.measure for c in found} == {"ratio"}
    assert any("times of different processors" in note for note in notes)
    assert any("only in the first result" in note for note in notes)


def test_limits_have_verdicts() -> None:
    found = {v["limit"]: v for v in document()["limits"]}
    numpy = found["NumPy, batched: inverse / best NumPy forward"]
    assert numpy["verdict"] == "miss"
    assert numpy["bound"] == 1.2
    assert found["backward error / (C k k eps)"]["verdict"] == "pass"
    growth = [v for v in document()["limits"] if v["limit"] == "exponent of cost in pixels"]
    assert [v["verdict"] for v in growth] == ["pass", "miss"]
    unclear = {v["limit"]: v for v in document(inverse=1.21e-3, noise=0.2)["limits"]}
    assert unclear["NumPy, batched: inverse / best NumPy forward"]["verdict"] == "unclear"


def test_the_page_holds_everything_and_escapes_words(tmp_path: Path) -> None:
    _, read = written(tmp_path)
    pictures = plots.draw(read, tmp_path)
    text = page.as_page(read, pictures)
    assert len(pictures) == 3
    assert text.count("data:image/png;base64,") == 3
    assert "{{" not in text
    assert "://" not in text
    assert "benchmark &lt;inverse&gt;" in text
    assert "not yet run" in text
    assert "busy with other work" in text
    for word in ("slow one", "not installed", "im2col", "miss", "1.50 ± 0.00"):
        assert word in text
    assert len(list(tables.tables(read))) >= 5


def test_every_group_belongs_to_a_suite_and_is_unique() -> None:
    assert {g.suite for g in GROUPS} == set(SUITES)
    titles = [(g.suite, g.map, g.shape, g.axis) for g in GROUPS]
    assert len(titles) == len(set(titles))
    assert set(LIMIT_SHAPES) <= {g.shape for g in GROUPS if g.suite == "inverse"}
    assert max(g.pixels for g in GROUPS if g.axis == "pixels") >= 16e6
    for axis in ("pixels", "batch", "channels", "kernel"):
        assert sum(g.axis == axis for g in select("scaling", [], ("float32",), True)) >= 3
    chosen = select("forward", [(2, 3, 4, 5)], ("float64",), False)
    assert {g.shape for g in chosen} == {(2, 3, 4, 5)}
    assert {g.dtype for g in chosen} == {"float64"}
    assert select("scaling", [(2, 3, 4, 5)], ("float64",), False) == []


def test_readme_block_is_renewed_from_results(tmp_path: Path) -> None:
    _, read = written(tmp_path)
    old = f"before\n{readme.START}\nold\n{readme.END}\nafter"
    new = readme.updated(old, [read])
    assert new.startswith("before\n")
    assert new.endswith("\nafter")
    assert "| 64, 12, 16, 16 | 1.3 (" in new
    assert readme.updated(new, [read]) == new
    with pytest.raises(ValueError, match="expected the marks"):
        readme.updated("no marks", [read])


def test_the_readme_shows_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.committed()
    assert readme.updated(text, readme.committed()) == text, (
        "run python -m invconv_benchmarks.readme"
    )
