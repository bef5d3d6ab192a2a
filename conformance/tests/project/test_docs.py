"""The pages: each public name has one, with an example, and all of it builds without a warning."""

from __future__ import annotations

import inspect
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from invconv._cli import main
from invconv_benchmarks.docs.names import PACKAGES, Name, public


@pytest.fixture(scope="module")
def names() -> list[Name]:
    """Return all public names, for which every flow library is imported."""
    return [name for package in PACKAGES for name in public(package)]


def has_example(cls: type, member: str) -> bool:
    """Tell whether a class or a base shows a call, refers to one, or is not ours."""
    classes = [c for c in cls.__mro__ if member in vars(c)]
    texts = [getattr(vars(c)[member], "__doc__", None) or "" for c in classes]
    return (
        isinstance(vars(classes[0])[member], property)
        or any(re.search(r">>> |^See `InvertibleConv\.\w+`", text) for text in texts)
        or any(re.search(rf">>> .*\.{member}\(", c.__doc__ or "") for c in cls.__mro__)
        or not all(c.__module__.startswith("invconv") for c in classes)
    )


def test_every_name_and_method_has_an_example(names: list[Name]) -> None:
    listed = {f"{name.package}.{name.name}": name for name in names}
    assert {"invconv.PeriodicConv", "invconv_torch.Conv1x1", "invconv_jax.init"} <= set(listed)
    for full, name in listed.items():
        assert ">>> " in (inspect.getdoc(name.value) or ""), full  # which --doctest-modules runs
        for member in name.members:
            assert has_example(name.value, member), f"{full}.{member}"
            assert inspect.getdoc(getattr(name.value, member)), f"{full}.{member}"


class _References(HTMLParser):
    """The addresses that a page loads or links to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        if tag == "a":
            self.linked.append(values.get("href") or "")
        elif tag != "meta":
            self.loaded += [v for n in ("src", "href") if (v := values.get(n))]


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], names: list[Name]
) -> None:
    site = tmp_path / "site"
    for _ in range(2):  # the second replaces the first
        assert main(["docs", "--out", str(site)]) == 0
    printed = capfd.readouterr()
    assert "WARNING" not in printed.out + printed.err
    pages = {page: _References(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert len(pages) > len(names)
    for page, found in pages.items():
        if page.name == "404.html":
            continue
        assert [a for a in found.loaded if re.match(r"(https?:)?//", a)] == []
        for address in found.linked:
            path, _, anchor = address.partition("#")
            if not re.match(r"https?:", address):
                target = (page.parent / path).resolve() if path else page
                assert target.exists(), (page, address)
                assert not anchor or anchor in pages[target].anchors, (page, address)
    for name in names:
        text = (site / name.page).with_suffix(".html").read_text(encoding="utf-8")
        assert "Examples:" in text
        for member in name.members:
            assert f'id="{name.where}.{member}"' in text
    assert "<math" in (site / "invconv" / "index.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site"]
