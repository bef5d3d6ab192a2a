"""The pages: each public name has one, with an example, and all of it builds without a warning."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest

from invconv._cli import main
from invconv_benchmarks.docs import command, pages
from invconv_benchmarks.docs.pages import PACKAGES, Name, public
from tests.selected import OWN

GUIDE = "benchmarks/guide/"
BLUR, FILTER = GUIDE + "undo-a-blur", GUIDE + "run-a-filter"
WORDS = {  # that people search for, and a page that has them
    **dict.fromkeys(("deconvolution", "psf", "wiener", "dirichlet"), BLUR),
    **dict.fromkeys(("iir", "lfilter", "butterworth", "filtfilt", "decimate", "zi"), FILTER),
    **dict.fromkeys(("biquad", "lpc", "pole"), FILTER),
    "whitening": "gallery/whiten",
}


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
    listed = {f"{n.package}.{n.name}": n for n in names if n.package != "invconv.extend"}
    assert {"invconv.PeriodicConv", "invconv_torch.Conv1x1", "invconv_jax.init"} <= set(listed)
    for full, name in listed.items():
        assert ">>> " in (inspect.getdoc(name.value) or ""), full  # which --doctest-modules runs
        for member in name.members:
            assert has_example(name.value, member), f"{full}.{member}"
            assert inspect.getdoc(getattr(name.value, member)), f"{full}.{member}"


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    names: list[Name],
) -> None:
    site = tmp_path / "site"
    assert main(["docs", "--check", "--out", str(site)]) == 0
    operators = {f"{cls.__module__}.{cls.__name__}" for cls in OWN}
    loaded = r'<(?!a |meta )[^>]* (?:src|href)="((?:https?:)?//[^"]*)'
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(loaded, text) == [], page
        assert 'arithmatex">\\' not in text, page  # TeX
        for linked, anchor in re.findall(r'<a href="([^":#]+)#?([^"]*)"><code>', text):
            assert f'"{anchor}"' in '""' + (page.parent / linked).read_text(encoding="utf-8"), page
    for name in names:
        text = (site / name.page).with_suffix(".html").read_text(encoding="utf-8")
        assert "Examples:" in text or name.package == "invconv.extend"
        assert "<math" in text or name.where not in operators or name.name == "Transposed"
        for member in name.members:
            assert f'id="{name.where}.{member}"' in text
    assert "<math" in (site / "invconv" / "index.html").read_text(encoding="utf-8")
    assert "array, shape (C,)" in (site / "api/invconv/ActNorm.html").read_text("utf-8")
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    for word, place in WORDS.items():
        texts = (d["text"] for d in index["docs"] if d["location"].startswith(place))
        text = re.sub("<[^>]*>", " ", " ".join(texts)).lower()
        split = re.split(index["config"]["separator"], text)
        assert any(term.startswith(word) for term in split), word

    readable = pages._readable
    monkeypatch.setattr(pages, "_readable", lambda text: f"{readable(text)}\n\n[dead](#nowhere)")
    assert main(["docs", "--out", str(site)]) == 2
    assert "'#nowhere', but there is no such anchor" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["site"]  # the whole one is still there


def test_a_link_to_a_site_stays_and_so_does_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, link = tmp_path / "site" / "api" / "invconv" / "index.html", tmp_path / "link"
    old.parent.mkdir(parents=True)
    old.touch()
    link.symlink_to("site")
    monkeypatch.setattr(pages, "write", lambda folder: folder.mkdir() or [])
    monkeypatch.setattr(command, "build", lambda config: Path(config.site_dir).mkdir())
    monkeypatch.chdir(old.parent)
    for folder in (".", "../.."):
        assert main(["docs", "--out", folder]) == 2
        assert "--out: expected" in capsys.readouterr().err
        assert old.exists()
    monkeypatch.chdir(tmp_path)
    assert main(["docs", "--out", "link"]) == 0
    assert (link.is_symlink(), list(link.iterdir())) == (True, [])


def test_a_page_that_is_too_wide_for_a_phone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, style in (("fits", "overflow: auto"), ("wide", "")):
        box = f'<div style="{style}"><div style="width: 500px">a</div></div>'
        (tmp_path / f"{name}.html").write_text(f"<body style='margin: 0'>{box}", encoding="utf-8")
    if any(map(shutil.which, command.BROWSERS)):
        assert command.too_wide(tmp_path) == ["wide.html is 125 pixels too wide"]
    monkeypatch.setattr(command, "BROWSERS", ("no-browser",))
    assert command.too_wide(tmp_path) == []
    assert "only the links were checked" in capsys.readouterr().out
