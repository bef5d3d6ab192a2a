"""Results: ratios with their spread, verdicts, files, the README's table, pages of both reports."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invconv._cli import main
from invconv_benchmarks import command
from invconv_benchmarks.docs import readmes
from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.timing import Interval
from invconv_benchmarks.report import tables
from invconv_benchmarks.results import result
from invconv_benchmarks.results.result import Result, Row, judged, merged, verdicts_of
from invconv_benchmarks.suites import FFT
from invconv_conformance import printing, report
from invconv_conformance.libraries import Column
from invconv_conformance.report import as_page, cells
from invconv_conformance.run import LawVerdict
from tests.programs import ROOT

ENVIRONMENT = {"cpu": "a processor", "cores": 2, "memory_bytes": 2**34, "gpus": []}
ENVIRONMENT |= {"platform": "Linux", "python": "3.11", "blas": ["Haswell"], "commit": "abc"}
ENVIRONMENT |= {"versions": {"numpy": "2", "torch": "2", "jax": "0"}}


def row(contender: str, role: str, does: str, samples: list[float], **others: Any) -> Row:
    fields: dict[str, Any] = {"suite": "inverse", "map": "corner 2", "shape": (64, 12, 16, 16)}
    fields |= {"axis": "", "dtype": "float32", "limit": None, "threads": 1}
    fields |= {"library": "numpy", "device": "cpu", "mode": "eager", "plan": 1e-3, "first": 2e-3}
    fields |= {"contender": contender, "role": role, "does": does}
    return Row(**fields | {"passes": [samples] if samples else []} | others)


def samples(center: float, noise: float = 0.01, count: int = 30, seed: int = 0) -> list[float]:
    factors = 1 + noise * np.random.default_rng(seed).standard_normal(count)
    return [float(center * f) for f in factors]


def invented(inverse: float = 1.3e-3, noise: float = 0.01) -> Result:
    """Return a result of one group in two passes, and of a series over image sizes."""
    found, ours = [], samples(inverse, noise, seed=9)
    for number in range(2):
        found += [
            row("invconv forward", "ours", "forward", samples(1.1e-3, noise, seed=number)),
            row("invconv inverse", "ours", "inverse", ours, residual=1e-7),
            row("im2col", "plain", "forward", samples(1e-3, noise, seed=20 + number)),
            row("F.conv2d", "plain", "forward", samples(1.5e-3, noise, seed=30), library="torch"),
            row("slow one", "peer", "inverse", samples(1.0, noise, 2)),
            row("broken one", "peer", "inverse", [], error="RuntimeError: <no> such thing"),
        ]
    for n in (4, 8, 12, 16, 20):
        for does, power in (("forward", 1.0), ("inverse", 1.5)):
            place = {"suite": "growth", "shape": (1, 3, n, n), "axis": "pixels"}
            seconds = [1e-6 * n ** (2 * power)] * 3
            found.append(row(f"invconv {does}", "ours", does, seconds, **place))
    rows = merged(found)
    run: dict[str, Any] = {"invconv": "0.1.0", "date": "2026-01-01T00:00:00+00:00", "passes": 2}
    run |= {"command": "python -m invconv benchmark <inverse>", "not_run": ["CuPy: not installed"]}
    run |= {"seconds": 1.0, "complete": True, "quick": False, "load": {"start": 0.1, "end": 9.0}}
    return Result(environment=dict(ENVIRONMENT), rows=rows, limits=verdicts_of(rows), **run)


def test_ratio_of_samples_that_drift_together() -> None:
    drift = np.linspace(1, 3, 40)
    a, b = drift * 2 * np.asarray(samples(1, 0.01, 40)), drift * np.asarray(samples(1, 0.01, 40, 1))
    found = timing.ratio([a.tolist()], [b.tolist()])
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(2, rel=0.05)
    assert timing.ratio([[2.0, 4.0]], [[1.0]]) == Interval(2, 2, 2)


def test_passes_that_differ_widen_the_interval() -> None:
    base = [samples(1, count=20, seed=1), samples(1, count=20, seed=2)]
    same = timing.ratio([samples(2), samples(2, seed=3)], base)
    other = timing.ratio([samples(2), samples(3, seed=3)], base)
    assert same.high - same.low < 0.2
    assert other.low < 2.05 < 2.95 < other.high
    logs = 0.1 * np.random.default_rng(0).standard_normal((2000, 2))
    pairs = [([[2 * np.exp(a)], [2 * np.exp(b)]], [[1.0]] * 2) for a, b in logs]
    assert timing.between_passes(pairs) == pytest.approx(0.1, rel=0.05)
    assert timing.between_passes([([[1.0]], [[2.0]])]) == 0  # one pass tells nothing
    for theirs, value in (([[1.0] * 5, [2.0] * 5], 1), ([[1.0] * 5, []], 2)):  # a pass failed
        mine, its = (
            merged([row(name, name, "inverse", s, passes=[s]) for s in passes])[0]
            for name, passes in (("ours", [[], [2.0] * 5]), ("plain", theirs))
        )
        assert mine.ratio_to(its) == Interval(value, value, value)
        assert timing.between_passes([(mine.passes, its.passes)]) == 0
    low = timing.ratio([[2.0] * 5] * 2, [[1.0] * 5] * 2, 0.1).low
    assert low == pytest.approx(2 * np.exp(-0.3))

    # the exponent of an exact power law
    sizes = [4.0, 16.0, 64.0, 256.0, 16e6]
    found = timing.exponent(sizes, [3e-7 * n**2.1 for n in sizes])
    assert found.value == pytest.approx(2.1, abs=1e-9)
    assert found.high - found.low < 1e-6
    seconds = np.asarray(sizes) ** 2 * [1, 1.1, 0.9, 1.1, 1]
    variance = np.polyfit(np.log(sizes), np.log(seconds), 1, cov=True)[1][0, 0]
    found = timing.exponent(sizes, [*seconds])
    assert (found.high - found.low) / 2 == pytest.approx(3.1824463 * variance**0.5)  # t, 3 free


def test_rows_are_compared_with_those_of_their_kind() -> None:

    def kinds(device: str) -> list[Any]:
        return [{}, {"dtype": "float64"}, {"device": device}]

    rows = [
        row("F.conv2d", "plain", "forward", [ms], library="torch", **place)
        for ms in (1.0, 3.0)
        for place in kinds("cuda:0")
    ] + [
        row("ours", "ours", "inverse", [ms], library="torch", **place)
        for ms in (4.0, 6.0)
        for place in kinds("cuda:1")
    ]
    rows[4].passes = [[1.0]]  # float64's convolution takes as long in both passes
    found = {(r.contender, r.dtype, r.device): r for r in merged(rows)}
    ours, double = (found["ours", kind, "cpu"] for kind in ("float32", "float64"))
    assert ours.passes == [[4.0], [6.0]]
    assert (ours.p10, ours.median, ours.p90) == (4.2, 5, 5.8)
    for one, value, changed in ((ours, 2.5, 2), (double, 5, 1.5)):  # from pass to pass
        assert one.yardstick is not None
        assert one.yardstick.value == value
        assert one.yardstick.low == pytest.approx(value * changed ** (-3 / 2**0.5))
    assert found["ours", "float32", "cuda:1"].yardstick is None


def test_a_verdict_and_an_inverse_are_of_the_whole_spread() -> None:
    for low, high, bound, least, verdict in (
        (0.7, 0.9, 0.9, False, "pass"),
        (0.7, 0.9, 0.89, False, "unclear"),
        (0.7, 0.9, 0.69, False, "miss"),
        (1.6, 1.8, 1.6, True, "pass"),
        (1.5, 1.8, 1.6, True, "unclear"),
        (1.3, 1.5, 1.6, True, "miss"),
    ):
        found = judged("", "", Interval((low + high) / 2, low, high), bound, least=least)
        assert found.verdict == verdict
    assert Interval(2.0, 1.0, 4.0).inverse() == Interval(0.5, 0.25, 1.0)


def of(axis: str, k: int) -> dict[str, Any]:
    """Return the place of a row in a series of sizes k."""
    shape = {"batch": (k, 3, 9, 9), "channels": (1, k, 9, 9)}.get(axis, (1, 3, 9, 9))
    kernel = f"corner {k if axis == 'taps' else 2}"
    return {"suite": "growth", "axis": axis, "shape": shape, "map": kernel}


def test_limits_have_verdicts() -> None:
    name = "NumPy, one thread: inverse / F.conv2d"
    found = {v.limit: v for v in invented().limits}
    assert (found[name].verdict, found[name].bound) == ("miss", 0.8)
    assert found[name].value == pytest.approx(1.3 / 1.5, rel=0.02)
    assert found["backward error / (C k k eps)"].verdict == "pass"
    growth = [v for v in invented().limits if v.limit == "exponent of cost in pixels"]
    assert [v.verdict for v in growth] == ["pass", "miss"]
    assert [v.value for v in growth] == pytest.approx([1, 1.5])
    unclear = {v.limit: v for v in invented(inverse=1.15e-3, noise=0.2).limits}
    assert unclear[name].verdict == "unclear"
    rows = [r for r in invented().rows if not r.axis or r.shape[2] <= 16]  # four sizes
    assert not [v for v in verdicts_of(rows) if "exponent" in v.limit]
    for axis, bound, size in (("taps", 1.1, 2), ("batch", 1.1, 1), ("channels", 2.1, 1)):
        rows = [
            row("i", "ours", "inverse", [1e-6 * k**power] * 3, dtype=dtype, **of(axis, k))
            for dtype, power in (("float32", 2), ("float64", 3))
            for k in range(2, 7)
        ]
        growth = verdicts_of(merged(rows))
        assert [v.value for v in growth] == pytest.approx([2 / size, 3 / size])
        assert [v.bound for v in growth] == [bound] * 2


# what rows have in common; contenders, what they do and their milliseconds; values and bounds
SMALL, UNIT = (1, 12, 16, 16), 12 * 2**2 * 2.0**-23
CONV2D, SOLVE = ("F.conv2d", "forward", 1), ("ours", "inverse", 3)
LIMITED: tuple[tuple[dict[str, Any], tuple[Any, ...], list[tuple[float, float]]], ...] = (
    ({"library": "numpy"}, (SOLVE,), []),  # without the yardstick
    ({"library": "numpy", "threads": 2}, (CONV2D, SOLVE), []),
    ({"library": "numpy"}, (CONV2D, SOLVE), [(3, 0.8)]),
    ({"library": "torch"}, (CONV2D, SOLVE), [(3, 0.88)]),
    ({"library": "jax"}, (CONV2D, SOLVE), [(3, 1.12)]),
    ({"library": "jax", "shape": SMALL}, (CONV2D, SOLVE), [(3, 6)]),
    ({"dtype": "float64", "shape": (64, 24, 8, 8)}, (CONV2D, SOLVE), [(3, 0.75)]),
    ({"suite": "odd", "library": "jax", "limit": 2.0}, (CONV2D, SOLVE), [(3, 2.8)]),
    ({"suite": "overhead", "limit": 2.0}, (("plain", "call", 1), SOLVE), [(3, 2)]),
    ({"suite": "threads"}, (("one", "inverse", 1.5), ("ours", "inverse", 0.75)), [(2, 1.6)]),
    ({"suite": "threads"}, (("one", "inverse", 0.9), ("ours", "inverse", 1)), [(0.9, 0.95)]),
    ({"suite": "checks"}, (("ours", "solve", 1), ("ours", "check", 106)), [(2, 1)]),
    ({"suite": "checks"}, (("ours", "solve", 1), ("ours", "diagnosis", 103)), [(0.5, 1)]),
    ({"map": "emerging 3"}, (("ours", "forward", 2), SOLVE), [(1.5, 1.5), (0.5, 1)]),
    ({"map": "periodic 3"}, ((FFT, "forward", 2), SOLVE), [(1.5, 1.1)]),
)


@pytest.mark.parametrize(("common", "timed", "wanted"), LIMITED)
def test_what_is_limited(common: Any, timed: Any, wanted: Any) -> None:
    rows = [
        row(name, "ours" if name == "ours" else "plain", does, [ms * 1e-3] * 9, **common)
        for name, does, ms in timed
    ]
    for one in rows:
        one.library = "torch" if one.contender == "F.conv2d" else one.library
        one.passes += [[1.0]] * (one.suite == "checks")  # whose least time counts, of all passes
        one.residual = UNIT / 2 if one.map == "emerging 3" and one.does == "inverse" else None
    found = verdicts_of(rows := merged(rows))
    heads = {head for section in tables.times(rows) for head in section.right}
    assert f"÷ {'F.conv2d' if common.get('suite') == 'odd' else 'yardstick'}" not in heads
    assert [(v.value, v.bound) for v in found] == [pytest.approx(pair) for pair in wanted]
    at_least = common.get("suite") == "threads"
    assert all((" 2 thr" in v.what) == at_least for v in found)
    kept = [v.value >= v.bound if at_least else v.value <= v.bound for v in found]
    assert [v.verdict == "pass" for v in found] == kept


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result.write(path, invented())
    read = result.read(path)
    assert read == invented()
    assert [r.yardstick for r in read.rows if r.contender == "F.conv2d"] == [Interval(1, 1, 1)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cores": 2', '"cores": NaN', "expected JSON; the file is cut off or damaged"),
        ('"cores": 2', '"cores": 64', "the checksum does not match, so the file was changed"),
        ('"verdict": "miss"', '"verdict": "pass"', "the checksum does not match"),
        ("invconv-benchmark/2", "invconv-benchmark/9", "expected a result of schema"),
        ('"limits": [', "", "the file is cut off or damaged"),
    ],
)
def test_a_changed_file_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result.write(path, invented())
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        result.read(path)


def test_nothing_measured_is_an_error_and_words_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    words = "ValueError: a [list] and [/no tag]"
    rows = [row(f"invconv {words}", "ours", "inverse", [], error=words)]
    found = replace(invented(), rows=rows, not_run=[words])  # with limits, as a study has them
    monkeypatch.setattr(command, "perform", lambda *_: found)
    assert main(["benchmark", "inverse", "--library=numpy", "--out", str(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert out.count(words) == 4  # in a table, why something was not run, what failed and how
    assert "nothing was measured: expected" in error
    rows.append(row("solve", "plain", "solve", [1.0]))  # all checks failed
    found = replace(found, limits=[])
    assert main(["benchmark", "checks", "--quick", "--out", str(tmp_path)]) == 1


def test_the_page_holds_everything_and_escapes_words(tmp_path: Path) -> None:
    pictures = command.draw(invented(), tmp_path)
    text = command.as_page(invented(), pictures)
    assert text.count("data:image/png;base64,") == len(pictures) == 1
    assert "://" not in text
    for words in ("benchmark &lt;inverse&gt;", "&lt;no&gt; such thing", "not yet run", "miss"):
        assert words in text


def test_the_readmes_show_the_committed_results(tmp_path: Path, monkeypatch: Any) -> None:
    texts, command = readmes.updated(), "run python -m invconv_benchmarks.docs.readmes"
    for path, text in texts.items():
        assert text == path.read_text(encoding="utf-8"), command
    for picture in re.findall(r"\((results/[^)]*)\)", texts[readmes.OWN]):
        assert (ROOT / "benchmarks" / picture).is_file()
    text, changed = texts[readmes.FRONT], tmp_path / "README.md"
    changed.write_text(text.replace("| 64, 12, 16, 16 |", "| 0 |"), encoding="utf-8")
    monkeypatch.setattr(readmes, "FRONT", changed)
    assert readmes.updated()[changed] == text != changed.read_text(encoding="utf-8")


HOSTILE = "</script><script>alert('x', \"y\")</script><!--&amp;\u2028\u2029"


def checked(case: str, error: float, status: str = "pass", **others: Any) -> LawVerdict:
    fields: dict[str, Any] = {"law": "forward.value", "what": "y", "bound": 1e-12, "seconds": 0.1}
    fields["column"] = Column("torch", "cpu", "eager", "float64")
    return LawVerdict(case=case, error=error, status=status, **fields | others)


def document(*results: LawVerdict, **others: Any) -> dict[str, Any]:
    columns = list(dict.fromkeys(one.column for one in results))
    not_run = ["CuPy: not executed, no GPU"]
    run = report.document("invconv conformance", columns, results, not_run, [], 1.5)
    return run | {"date": "2026-11-24T19:40:00+00:00"} | others


def texts(page: str) -> list[str]:
    parts = re.split(r"<[^>]+>", page.partition("</style>")[2])
    return [html.unescape(part).strip() for part in parts if part.strip()]


def test_the_page_holds_the_worst_case_and_all_that_fails() -> None:
    (cell,) = cells(document(checked("a", 1e-13), checked("b", math.inf), checked("c", 1e-13)))
    assert cell.worst is not None
    assert (cell.worst["case"], cell.share) == ("b", math.inf)
    passes = [checked(f"case-{i}", i * 1e-15) for i in range(500)]
    bad = [
        checked("known", 4e-12, "expected", reason="https://github.com/jax-ml/jax/issues/1"),
        checked("raises", math.inf, "error", what="ValueError: no"),
        checked("over", 2e-12, "fail"),
        checked("infinite", math.inf, "fail"),
    ]
    run = document(*passes, *bad, checked("none", 0.0, "not applicable"))
    (cell,) = cells(run)
    assert cell.worst is not None
    assert cell.worst["case"] == "case-499"
    assert cell.share == pytest.approx(0.499)
    page = as_page(run)
    shown = texts(page)
    for text in (passes[-1].reproduce, "49%", "ValueError: no", "200%", "✕ 3"):
        assert text in shown
    assert 'href="https://github.com/jax-ml/jax/issues/1"' in page
    cases = [text for text in shown if text in {r.case for r in bad} | {"case-499"}]
    assert cases == ["case-499", "infinite", "over", "raises", "known"]
    assert "case-498" not in page
    (lead,) = [text for text in shown if text.startswith("500 checks hold")]
    counts = "2 fail; 1 ends in an error; 1 fails as expected; 1 does not apply"
    assert lead == f"500 checks hold; {counts}. Not run: CuPy: not executed, no GPU."


def test_the_terminal_shows_the_worst_of_each_kind_of_failure(capsys: Any) -> None:
    fails = [checked(case, n * 1e-12, "fail") for case, n in (("a", 2), ("b", 3), ("c", 2.5))]
    errors = [checked(f"e{i}", math.inf, "error", what=f"Error {i % 12}") for i in range(13)]
    report.show(printing.console(), document(*fails, *errors))
    shown = capsys.readouterr().out
    assert "fail forward.value, b: y\n  error 3e-12, bound 1e-12\n  3 times, in forward.v" in shown
    assert "error forward.value, e0: Error 0\n  2 times, in forward.v" in shown
    assert shown.count("error forward.value, e") == 11
    assert "and 1 more kinds; " in shown
    assert "0 of 16 hold: 1 laws on 16 cases, 2 s" in shown


def test_no_name_becomes_an_element() -> None:

    def page(name: str) -> str:
        bad = checked(name, 2e-12, "fail", what=name, law=name, reason=name)
        pair = {"a": name, "b": f"{name}2", "difference": 2.0, "condition": 3.0}
        others: dict[str, Any] = {
            "laws": {name: {"definition": name, "source": name}},
            "not_run": [name],
            "lacks": {name: [name]},
            "agreement": [dict.fromkeys(("dtype", "quantity", "case"), name) | pair],
        }
        return as_page(document(bad, platform=name, command=name, **others))

    hostile, usual = page(HOSTILE), page("x")
    assert all(hostile.count(mark) == usual.count(mark) for mark in '<>"')
    assert texts(hostile).count(HOSTILE.strip()) >= 9
    assert "{{ run }}" in " ".join(texts(page("{{ run }}")))  # no name is a template


def test_the_page_loads_and_runs_nothing() -> None:
    page = as_page(document(checked("a", 1e-13)))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    loading = "img|iframe|object|embed|audio|video|source|form|base|script"
    assert not re.search(rf"<({loading})\b|\s(src|on\w+)=|url\(|@import|@font-face", page)
    links = re.findall(r'href="([^"]*)', page)
    assert links
    assert all(link.startswith(("#", "data:,")) for link in links)
