"""The report's page: what it holds, and that nothing in it can break out or be loaded."""

import html
import math
import re
from typing import Any

import pytest

from invconv_conformance import report
from invconv_conformance.libraries.library import Column
from invconv_conformance.pages.conformance import as_page, cells
from invconv_conformance.run.check import Result

HOSTILE = "</script><script>alert('x', \"y\")</script><!--&amp;\u2028\u2029"


def result(case: str, error: float, status: str = "pass", **others: Any) -> Result:
    fields: dict[str, Any] = {"law": "forward.value", "what": "y", "bound": 1e-12, "seconds": 0.1}
    column = Column("torch", "cpu", "eager", "float64")._asdict()
    return Result(case=case, error=error, status=status, **fields | column | others)


def document(*results: Result, **others: Any) -> dict[str, Any]:
    columns = list(dict.fromkeys(result.column for result in results))
    not_run = ["CuPy: not executed, no GPU"]
    run = report.document("invconv conformance", columns, results, not_run, [], 1.5)
    return run | {"date": "2026-11-24T19:40:00+00:00"} | others


def texts(page: str) -> list[str]:
    """Return the text of each element that is shown."""
    parts = re.split(r"<[^>]+>", page.partition("</style>")[2])
    return [html.unescape(part).strip() for part in parts if part.strip()]


def test_the_page_holds_the_worst_case_and_all_that_fails() -> None:
    (cell,) = cells(document(result("a", 1e-13), result("b", math.inf), result("c", 1e-13)))
    assert cell.worst is not None
    assert (cell.worst["case"], cell.share) == ("b", math.inf)
    passes = [result(f"case-{i}", i * 1e-15) for i in range(500)]
    bad = [
        result("known", 4e-12, "expected", reason="https://github.com/jax-ml/jax/issues/1"),
        result("raises", math.inf, "error", what="ValueError: no"),
        result("over", 2e-12, "fail"),
        result("infinite", math.inf, "fail"),
    ]
    run = document(*passes, *bad, result("none", 0.0, "not applicable"))
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


def test_no_name_becomes_an_element() -> None:

    def page(name: str) -> str:
        bad = result(name, 2e-12, "fail", what=name, law=name, reason=name)
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
    page = as_page(document(result("a", 1e-13)))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    loading = "img|iframe|object|embed|audio|video|source|form|base|script"
    assert not re.search(rf"<({loading})\b|\s(src|on\w+)=|url\(|@import|@font-face", page)
    links = re.findall(r'href="([^"]*)', page)
    assert links
    assert all(link.startswith(("#", "data:,")) for link in links)
