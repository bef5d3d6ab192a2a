"""Benchmark results: refused files, comparisons, the page, the README's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from invconv_benchmarks.measure.memory import Peak
from invconv_benchmarks.report import changes, page, plots, readme, tables
from invconv_benchmarks.results import result, sealed
from invconv_benchmarks.suites.group import LIMIT_SHAPES, SUITES
from invconv_benchmarks.suites.groups import GROUPS, select
from tests.benchmarks.made_results import made, named, written

ROOT = Path(__file__).parents[3]


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    path, read = written(tmp_path)
    assert read == made()
    inverse = named(read.rows, "invconv inverse")
    assert inverse.against == "im2col"
    assert inverse.ratio is not None
    assert inverse.ratio.low <= inverse.ratio.value <= inverse.ratio.high
    assert inverse.ratio.value == pytest.approx(1.3, rel=0.02)
    common = inverse.yardstick
    assert common is not None
    assert common.low < common.value < common.high
    assert common.value == pytest.approx(1.3 / 1.5, rel=0.02)
    conv2d = named(read.rows, "F.conv2d").yardstick
    assert conv2d is not None
    assert conv2d.value == 1
    assert all(r.yardstick is None for r in read.rows if r.axis)  # PyTorch did not run
    assert [len(p) for p in inverse.passes] == [30, 30]
    assert inverse.memory == Peak(10**6, 5 * 10**5)
    assert inverse.roofline is not None
    assert 0 < inverse.roofline < 1
    assert named(read.rows, "absent one").error == "not installed"
    assert not list(tmp_path.glob(".*"))
    document = json.loads(path.read_text())
    assert (
        sealed.checksum(result.as_document(read))
        == sealed.checksum(document)
        == document["checksum"]
    )


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
    wrong = result.as_document(made())
    wrong["rows"][0]["median"] *= 2
    sealed.write(path, wrong)
    with pytest.raises(ValueError, match="the median is not that of its samples"):
        result.read(path)
    wrong = result.as_document(made())
    del wrong["rows"][0]["passes"]
    sealed.write(path, wrong)
    with pytest.raises(ValueError, match=r"not of schema .* at rows/0"):
        result.read(path)
    with pytest.raises(ValueError, match="there is no such file"):
        result.read(tmp_path / "nothing.json")
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected a result of schema"):
        result.read(path)


def test_compare_sees_changes_and_only_those(tmp_path: Path) -> None:
    before = made()
    found, notes = changes.changes(before, made(seed=50))
    assert {c.verdict for c in found} == {"same"}
    assert notes == ["1 rows not compared: not measured in one of them"]
    slow, _ = changes.changes(before, made(inverse=2e-3))
    verdicts = {c.row.contender: (c.measure, c.verdict) for c in slow if not c.row.axis}
    assert verdicts["invconv inverse"] == ("ratio", "slower")
    assert verdicts["invconv forward"] == ("ratio", "same")
    assert verdicts["im2col"] == ("time", "same")
    fast, _ = changes.changes(made(inverse=2e-3), before)
    assert "1 faster, 0 slower" in changes.summary(fast)
    noisy, _ = changes.changes(made(noise=0.5), made(inverse=1.5e-3, noise=0.5))
    assert {c.verdict for c in noisy} == {"same"}


def test_compare_of_two_machines_compares_ratios_alone() -> None:
    other = made()
    other.environment["cpu"] = "another processor"
    other.rows[:] = [r for r in other.rows if r.contender != "slow one"]
    found, notes = changes.changes(made(), other)
    assert {c.measure for c in found} == {"ratio"}
    assert any("times of different processors" in note for note in notes)
    assert any("only in the first result" in note for note in notes)


def test_the_page_holds_everything_and_escapes_words(tmp_path: Path) -> None:
    _, read = written(tmp_path)
    pictures = plots.draw(read, tmp_path)
    text = page.as_page(read, pictures)
    assert text.count("data:image/png;base64,") == len(pictures) == 2
    assert "{{" not in text
    assert "://" not in text
    assert "benchmark &lt;inverse&gt;" in text
    assert "not yet run" in text
    assert "busy with other work" in text
    for word in ("slow one", "not installed", "im2col", "miss", "1.50±"):
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
    assert "| B, C, H, W | NumPy ÷ its own | NumPy ÷ F.conv2d |" in new
    (line,) = [line for line in new.splitlines() if line.startswith("| 64, 12, 16, 16 |")]
    assert [cell.split()[0] for cell in line.split("|")[2:-1]] == ["1.3", "0.87"]
    assert readme.updated(new, [read]) == new
    with pytest.raises(ValueError, match="expected the marks"):
        readme.updated("no marks", [read])


def test_the_readme_shows_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.committed()
    assert readme.updated(text, readme.committed()) == text, (
        "run python -m invconv_benchmarks.report.readme"
    )
