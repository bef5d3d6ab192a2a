"""The sources of the site: Markdown files in the order in which a reader finds them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import invconv
from invconv import extend
from invconv.arrays.errors import CommandError
from invconv_benchmarks.docs.names import PACKAGES, Name, public
from invconv_benchmarks.gallery import command as gallery
from invconv_benchmarks.results.committed import RESULTS

CHECKOUT = Path(invconv.__file__).parents[1]
GUIDE = {
    "invconv": "README.md",
    "The mathematics": "invconv/README.md",
    "PyTorch, JAX, flow libraries": "backends/README.md",
    "Conformance": "conformance/README.md",
    "Benchmarks": "benchmarks/README.md",
}

# names in tables stay whole: on a phone the table scrolls
_STYLE = """\
.md-grid { max-width: 78rem; }
.md-typeset td code { overflow-wrap: normal; word-break: normal; }
"""


def write(folder: Path) -> list[dict[str, Any]]:
    """Write the sources into a folder, and return the navigation in mkdocs' form."""
    (folder / "wide.css").write_text(_STYLE, encoding="utf-8")
    api = [{f"API: {package}": _api(folder, package)} for package in PACKAGES]
    toolbox = {"API: invconv.extend": [_toolbox(folder)]}
    return [{"Guide": _guide(folder)}, {"Gallery": _gallery(folder)}, *api, toolbox]


def _guide(folder: Path) -> list[dict[str, str]]:
    """Copy the READMEs and the pictures that they show; links between them stay what they are."""
    for path in GUIDE.values():
        source = CHECKOUT / path
        if not source.is_file():
            why = "the guide's texts are not in an installed package"
            raise CommandError(f"docs: expected a clone of invconv with {path}: {why}")
        text = source.read_text(encoding="utf-8")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_readable(text), encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s#]+\.(?:jpg|png|svg))\)", text):
            picture = (source.parent / link).resolve()
            copy = folder / picture.relative_to(CHECKOUT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, copy)
    return [{title: path} for title, path in GUIDE.items()]


def _readable(text: str) -> str:
    """Separate lists from the paragraph above: GitHub's Markdown needs no blank line, this does."""
    return re.sub(r"(?m)^(?![-*|#>\s]|\d+\. )(.+)\n(?=[-*] |\d+\. )", r"\1\n\n", text)


def _gallery(folder: Path) -> list[str | dict[str, str]]:
    """Write a page for each example: what it shows, its picture, its source."""
    (folder / "gallery").mkdir()
    index = "# Gallery\n\nShort programs: `python -m invconv example NAME` runs one.\n"
    pages: list[str | dict[str, str]] = ["gallery/index.md"]
    for name in gallery.NAMES:
        source = gallery.source(name)
        title, _, rest = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
        shutil.copyfile(RESULTS / "gallery" / f"{name}.jpg", folder / "gallery" / f"{name}.jpg")
        body = source.partition('"""\n\n')[2]
        index += f"\n## [{title}]({name}.md)\n\n[![{title}]({name}.jpg)]({name}.md)\n"
        head = f"# {title}\n\n`python -m invconv example {name}`\n\n{rest}\n\n"
        text = f"{head}![{title}]({name}.jpg)\n\n```python\n{body}```\n"
        (folder / "gallery" / f"{name}.md").write_text(text, encoding="utf-8")
        pages.append({name.replace("_", " "): f"gallery/{name}.md"})
    (folder / "gallery" / "index.md").write_text(index, encoding="utf-8")
    return pages


def _api(folder: Path, package: str) -> list[str | dict[str, str]]:
    """Write a page for each public name of a package, and one that lists them."""
    names, index = public(package), f"api/{package}/index.md"
    (folder / index).parent.mkdir(parents=True, exist_ok=True)
    doc = _doctests(inspect.getdoc(importlib.import_module(package)) or "")
    table = _table([(f"[`{n.name}`]({n.name}.md)", n.summary) for n in names])
    text = f"# {package}\n\nFor {PACKAGES[package]}.\n\n{table}\n\n{doc}\n"
    (folder / index).write_text(text, encoding="utf-8")
    for name in names:
        (folder / name.page).write_text(_page(name), encoding="utf-8")
    return [index, *({n.name: n.page} for n in names)]


def _toolbox(folder: Path) -> str:
    """Write one page for authors of operators and of array libraries: an example, and the names."""
    page, names = "api/invconv.extend.md", public("invconv.extend")
    table = _table([(f"`{n.name}`", n.summary) for n in names])
    text = f"# invconv.extend\n\n{inspect.getdoc(extend)}\n\n{table}\n"
    (folder / page).write_text(text, encoding="utf-8")
    return page


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {summary} |" for name, summary in rows]
    return "\n".join(["| name | what it is |", "|---|---|", *lines])


def _doctests(doc: str) -> str:
    """Put a docstring's examples into fences."""
    return re.sub(r"(?ms)^(>>> .*?)(?=\n\n|\Z)", r"```pycon\n\1\n```", doc)


def _page(name: Name) -> str:
    members = "".join(f"\n        - {member}" for member in name.members) or " false"
    return (
        f"`from {name.package} import {name.name}`\n\n"
        f"::: {name.where}\n    options:\n      members:{members}\n"
    )
