"""The report's page: what it holds, and that nothing in it can break out or be loaded."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from invconv_conformance.page import as_page, share, thin

HOSTILE = "</script><script>alert('x')</script><!--&amp;\u2028\u2029"


def result(case: str, error: float | None, status: str = "pass", **others: Any) -> dict[str, Any]:
    fields = {
        "law": "forward.value",
        "case": case,
        "library": "torch",
        "device": "cpu",
        "mode": "eager",
        "dtype": "float64",
        "status": status,
        "what": "y",
        "error": error,
        "bound": 1e-12,
        "seconds": 0.1,
        "reproduce": f"python -m invconv conformance --library torch --cases '{case}'",
    }
    return fields | others


def document(*results: dict[str, Any], **others: Any) -> dict[str, Any]:
    columns = {
        (r["library"], r["device"], r["mode"], r["dtype"]): {
            "title": "PyTorch",
            "version": "2.13.0",
            **{k: r[k] for k in ("library", "device", "mode", "dtype")},
        }
        for r in results
    }
    fields = {
        "schema": "invconv-conformance/1",
        "invconv": "0.1.0",
        "date": "2026-11-24T19:40:00+00:00",
        "python": "3.11.7",
        "platform": "Linux",
        "command": "python -m invconv conformance --html report.html",
        "seconds": 1.5,
        "c": 10.0,
        "columns": list(columns.values()),
        "not_run": ["CuPy: not executed, no GPU"],
        "lacks": {},
        "laws": {"forward.value": {"definition": "|f(x) - K x| <= c m eps", "source": "it is"}},
        "results": list(results),
        "agreement": [],
    }
    return fields | others


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep the text of a script or style, in the parts that the parser hands out."""
        if self.lasttag in self.texts and data.strip():
            self.texts[self.lasttag].append(data)


def shown(page: str) -> dict[str, Any]:
    """Return the data as a browser reads them: the whole text of the first script element."""
    found: dict[str, Any] = json.loads(Elements(page).texts["script"][0])
    return found


def test_the_page_holds_the_worst_case_and_all_that_fails() -> None:
    passes = [result(f"case-{i}", i * 1e-15) for i in range(500)]
    bad = [
        result("expected", 4e-12, "expected", reason="https://github.com/jax-ml/jax/issues/1"),
        result("raises", None, "error", what="ValueError: no"),
        result("over", 2e-12, "fail"),
        result("infinite", None, "fail"),
    ]
    page = as_page(document(*passes, *bad, result("none", 0.0, "not applicable")))
    (cell,) = shown(page)["cells"]
    assert (cell["law"], cell["column"]) == ("forward.value", 0)
    counts = {"pass": 500, "expected": 1, "error": 1, "fail": 2, "not applicable": 1}
    assert cell["counts"] == counts
    assert cell["worst"]["case"] == "case-499"
    assert cell["worst"]["share"] == pytest.approx(0.499)
    assert cell["worst"]["reproduce"] == passes[-1]["reproduce"]
    assert [found["case"] for found in cell["bad"]] == ["infinite", "over", "raises", "expected"]
    assert cell["bad"][-1]["reason"] == "https://github.com/jax-ml/jax/issues/1"
    assert "case-498" not in page


def test_every_law_and_column_has_its_own_cell() -> None:
    results = [
        result("a", 1e-13, law=law, mode=mode, dtype=dtype)
        for law in ("forward.value", "kind")
        for mode in ("eager", "jit")
        for dtype in ("float64", "float32")
    ]
    cells = thin(document(*results))["cells"]
    assert len({(c["law"], c["column"]) for c in cells}) == len(cells) == 8
    assert {c["column"] for c in cells} == set(range(4))


@pytest.mark.parametrize(
    ("error", "bound", "expected"),
    [(1.0, 4.0, 0.25), (0.0, 0.0, 0.0), (None, 1.0, None), (1.0, 0.0, None), (1e300, 1e-300, None)],
)
def test_share(error: float | None, bound: float, expected: float | None) -> None:
    assert share({"error": error, "bound": bound}) == expected


def test_no_name_ends_the_script_it_is_in() -> None:
    hostile = document(
        result(HOSTILE, 2e-12, "fail", what=HOSTILE, reproduce=HOSTILE, law=HOSTILE),
        laws={HOSTILE: {"definition": HOSTILE, "source": HOSTILE}},
        not_run=[HOSTILE],
        lacks={HOSTILE: [HOSTILE]},
        platform="{{document}}",
    )
    page = as_page(hostile)
    assert "\u2028" not in page
    assert "\u2029" not in page
    assert "alert('x')<" not in page
    held, plain = Elements(page), Elements(as_page(document(result("a", 0.0))))
    assert held.tags == plain.tags
    assert held.texts["script"][1:] == plain.texts["script"][1:]
    data = shown(page)
    assert data["cells"][0]["bad"][0]["what"] == HOSTILE
    assert data["not_run"] == [HOSTILE]
    assert data["platform"] == "{{document}}"


def test_the_page_loads_nothing() -> None:
    elements = Elements(as_page(document(result("a", 1e-13))))
    policies = [a.get("content") for tag, a in elements.tags if tag == "meta" and "http-equiv" in a]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ]
    loading = {"img", "iframe", "object", "embed", "audio", "video", "source", "form", "base"}
    assert not loading & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        assert "src" not in attributes
        assert attributes.get("href") in (None, "data:,")
        assert not [name for name in attributes if name.startswith("on")]
    (style,) = elements.texts["style"]
    assert not re.search(r"url\(|@import|@font-face", style)
    code = "".join(elements.texts["script"][1:])
    for way in ("eval(", "Function(", "HTML", "document.write", "fetch(", "import", "XML"):
        assert way not in code
