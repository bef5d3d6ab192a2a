"""The sources of the site: Markdown files in the order in which a reader finds them."""

import ast
import importlib
import inspect
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.gallery.command import NAMES, source
from invconv_benchmarks.report.tables import markdown
from invconv_benchmarks.results.committed import RESULTS

CHECKOUT = RESULTS.parents[1]
TEXTS = ("*.md", "*/*.md", "benchmarks/guide/*.md")
PACKAGES = {
    "invconv": "any array library",
    "invconv_torch": "PyTorch",
    "invconv_torch.flows": "PyTorch, densities of images",
    "invconv_torch.interop": "PyTorch's flow libraries",
    "invconv_jax": "JAX",
    "invconv_jax.flows": "JAX, densities of images",
    "invconv_jax.interop": "JAX's flow libraries",
    "invconv_conformance": "checks of any operator",
}


def write(folder: Path) -> list[dict[str, Any]]:
    """Write the sources into a folder, and return the gallery's and the names' navigation."""
    if not RESULTS.is_dir():
        raise CommandError("docs: expected a clone of invconv, with the texts that no wheel holds")
    shutil.copytree(RESULTS, folder / "benchmarks/results", ignore=shutil.ignore_patterns("*.json"))
    shutil.copy(Path(__file__).with_name("wide.css"), folder)
    for text in (path for pattern in TEXTS for path in sorted(CHECKOUT.glob(pattern))):
        target = folder / text.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * len(text.relative_to(CHECKOUT).parts[:-1])
        target.write_text(_linked(_readable(text.read_text("utf-8")), up), "utf-8")
    api = [{package: _api(folder, package)} for package in PACKAGES]
    toolbox = {"invconv.extend": "api/invconv.extend.md"}  # one page, for authors
    rows = [(f"`{n.name}`", n.summary) for n in public("invconv.extend")]
    _write_index(folder / toolbox["invconv.extend"], "invconv.extend", "", rows)
    return [{"Gallery": _gallery(folder)}, {"API": [*api, toolbox]}]


def _readable(text: str) -> str:
    """Separate lists from the paragraph above: GitHub's Markdown needs no blank line, this does."""
    return re.sub(r"(?m)^(?![-*|#>\s]|\d+\. )(.+)\n(?=[-*] |\d+\. )", r"\1\n\n", text)


# programs, headings and links stay as they are
_SAID = r"(?ms)^```.*?^```|^#.*?$|\[[^\[\]]*\]\([^()]*\)|`(?P<name>[\w.]+)(\([^`]*\))?`"


def _linked(text: str, up: str) -> str:
    """Link public names to their pages where prose says them; of one name the core's is meant."""
    names = [name for package in reversed(PACKAGES) for name in public(package)]
    pages = {n.name: n.page for n in names} | {f"{n.package}.{n.name}": n.page for n in names}

    def link(said: re.Match[str]) -> str:
        page = pages.get(said["name"] or "")
        return f"[{said[0]}]({up}{page})" if page else said[0]

    return re.sub(_SAID, link, text)


def _gallery(folder: Path) -> list[str | dict[str, str]]:
    """Write a page for each example: what it shows, its picture, its source."""
    (folder / "gallery").mkdir()
    index = "# Gallery\n\nShort programs: `python -m invconv example NAME` runs one.\n"
    pages: list[str | dict[str, str]] = ["gallery/index.md"]
    for name in NAMES:
        program = source(name)
        title, _, rest = (ast.get_docstring(ast.parse(program)) or "").partition(".\n")
        address = f"../benchmarks/results/gallery/{name}.jpg"
        body = program.partition('"""\n\n')[2]
        index += f"\n## [{title}]({name}.md)\n\n[![{title}]({address})]({name}.md)\n"
        head = f"# {title}\n\n`python -m invconv example {name}`\n\n{rest}\n\n"
        text = f"{head}[![{title}]({address})]({address})\n\n```python\n{body}```\n"
        (folder / "gallery" / f"{name}.md").write_text(text, encoding="utf-8")
        pages.append({name.replace("_", " "): f"gallery/{name}.md"})
    (folder / "gallery" / "index.md").write_text(index, encoding="utf-8")
    return pages


def _api(folder: Path, package: str) -> list[str | dict[str, str]]:
    """Write a page for each public name of a package, and one that lists them."""
    names, index = public(package), f"api/{package}/index.md"
    (folder / index).parent.mkdir(parents=True, exist_ok=True)
    rows = [(f"[`{n.name}`]({n.name}.md)", n.summary) for n in names]
    _write_index(folder / index, package, f"For {PACKAGES[package]}.", rows)
    for name in names:
        (folder / name.page).write_text(_page(name), encoding="utf-8")
    return [index, *({n.name: n.page} for n in names)]


def _write_index(page: Path, package: str, about: str, rows: list[tuple[str, str]]) -> None:
    doc = inspect.getdoc(importlib.import_module(package)) or ""
    doc = re.sub(r"(?ms)^(>>> .*?)(?=\n\n|\Z)", r"```pycon\n\1\n```", doc)
    table = "\n".join(markdown(("name", "what it is"), rows))
    page.write_text(f"# {package}\n\n{about}\n\n{doc}\n\n{table}\n", encoding="utf-8")


@dataclass(frozen=True)
class Name:
    """A public class or function, ``package.name``."""

    package: str
    name: str
    value: Any

    @property
    def page(self) -> str:
        """The page's path in the site's sources."""
        return f"api/{self.package}/{self.name}.md"

    @property
    def where(self) -> str:
        """The object's path where it is defined, which is how the generator knows it."""
        return f"{self.value.__module__}.{self.value.__qualname__}"

    @property
    def summary(self) -> str:
        """The docstring's first sentence, as a cell of a table."""
        first = (inspect.getdoc(self.value) or "").partition("\n\n")[0]
        return first.replace("\n", " ").replace("|", r"\|")

    @property
    def members(self) -> list[str]:
        """The public methods and properties that are ours, not those of a library's base class."""
        if not inspect.isclass(self.value):
            return []
        ours = [c for c in self.value.__mro__ if c.__module__.partition(".")[0] in _OURS]
        named = dict.fromkeys(n for c in ours for n in vars(c) if n[0] != "_")
        values = {n: getattr(self.value, n) for n in named if n not in _FOR_AUTHORS}
        return [n for n, v in values.items() if callable(v) or isinstance(v, property)]


# methods that authors of operators write, and nobody calls
_FOR_AUTHORS = {"advice", "drawn", "factors", "factors_vjp", "validate", "within"}
_OURS = {package.partition(".")[0] for package in PACKAGES}


def public(package: str) -> list[Name]:
    """Return the classes and functions that a package offers, in alphabetical order."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
    return [Name(package, n, v) for n, v in values.items() if not inspect.ismodule(v)]


def _page(name: Name) -> str:
    members = "".join(f"\n        - {member}" for member in name.members) or " false"
    return (
        f"`from {name.package} import {name.name}`\n\n"
        f"::: {name.where}\n    options:\n      members:{members}\n"
    )
