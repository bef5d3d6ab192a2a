"""``invconv docs``: build the pages of this version, to be read in a browser.

mkdocs builds them with the theme material; mkdocstrings reads the docstrings.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.commands.build import build as build_site
from mkdocs.config import load_config
from mkdocs.plugins import BasePlugin

from invconv.arrays.errors import CommandError
from invconv_benchmarks.docs import pages

SETTINGS = Path(__file__).with_name("mkdocs.yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    about = "the folder to write, which must not exist or hold such pages (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-docs"), help=about)


def run(arguments: argparse.Namespace) -> int:
    """Build the site and say where it is."""
    out: Path = arguments.out
    if out.exists() and not (out / "api" / "invconv" / "index.html").is_file():
        raise CommandError(f"--out: {out} exists, and is no folder of pages of this command")
    if not out.absolute().parent.is_dir():
        raise CommandError(f"--out: there is no folder {out.absolute().parent}")
    number = _build(out)
    print(f"wrote {number} pages: open {out / 'index.html'}")
    print(f"with the search, which browsers allow a server only: python -m http.server -d {out}")
    return 0


def _build(out: Path) -> int:
    """Build the site, replace a folder by it when it is whole, and return its number of pages."""
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}-") as name:
        sources, site = Path(name, "sources"), Path(name, "site")
        sources.mkdir()
        navigation = pages.write(sources)
        places = {"docs_dir": str(sources), "site_dir": str(site)}
        config = load_config(str(SETTINGS), nav=navigation, **places)
        config.plugins["mathml"] = MathML()
        build_site(config)
        if out.exists():
            shutil.rmtree(out)
        site.rename(out)
    return len(list(out.rglob("*.html")))


class MathML(BasePlugin):  # type: ignore[no-untyped-call,type-arg]
    """TeX between dollars becomes MathML, which browsers draw without a script."""

    def on_page_content(self, html: str, **_: Any) -> str:
        """Return a page whose formulas are MathML."""
        pattern = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
        return re.sub(pattern, _mathml, html, flags=re.DOTALL)


def _mathml(match: re.Match[str]) -> str:
    mode = "block" if match[1] == "div" else "inline"
    return latex2mathml.converter.convert(unescape(match[2]), display=mode)
