"""The sources of the site: Markdown files in the order in which a reader finds them."""

import ast
import importlib
import inspect
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import invconv
from invconv.arrays.errors import CommandError
from invconv_benchmarks.gallery.command import NAMES, source
from invconv_benchmarks.report.tables import markdown

# invconv says where the clone is: it is imported from there even where other packages are installed
CHECKOUT = Path(invconv.__file__).parents[1]
RESULTS = CHECKOUT / "benchmarks" / "results"  # not in the wheel; a folder for each version
TEXTS = ("*.md", "*/*.md", "benchmarks/guide/*.md")
PACKAGES = ("invconv", "invconv_torch", "invconv_torch.flows", "invconv_torch.interop",
            "invconv_torch.audio",
            "invconv_jax", "invconv_jax.flows", "invconv_jax.interop",
            "invconv_conformance", "invconv.extend")  # fmt: skip
# methods that authors of operators write, and nobody calls
_FOR_AUTHORS = {"advice", "drawn", "factors", "factors_vjp", "validate", "within"}


def write(folder: Path) -> list[dict[str, Any]]:
    """Write the sources into a folder, and return the gallery's and the names' navigation."""
    if not RESULTS.is_dir():
        raise CommandError("docs: expected a clone of invconv, with the texts that no wheel holds")
    shutil.copytree(RESULTS, folder / "benchmarks/results", ignore=shutil.ignore_patterns("*.json"))
    shutil.copy(Path(__file__).with_name("wide.css"), folder)
    for text in (path for pattern in TEXTS for path in sorted(CHECKOUT.glob(pattern))):
        target = folder / text.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_readable(text.read_text("utf-8")), "utf-8")
    return [{"Gallery": _gallery(folder)}, {"API": [{p: _api(folder, p)} for p in PACKAGES]}]


def _readable(text: str) -> str:
    """Separate lists from the paragraph above: GitHub's Markdown needs no blank line, this does."""
    return re.sub(r"(?m)^(?![-*|#>\s]|\d+\. )(.+)\n(?=[-*] |\d+\. )", r"\1\n\n", text)


@cache
def addresses(package: str) -> dict[str, str]:
    """Return the pages of public names and methods, by what the texts of a package call them."""
    packages = [*PACKAGES[::-1], *({package} & {*PACKAGES})]  # the last one's name is meant
    where = dict[str, str]()
    for name in (name for package in packages for name in public(package)):
        page = name.page.replace(".md", ".html")
        for said in (name.name, f"{name.package}.{name.name}"):
            where |= {f"{said}.{m}": f"{page}#{name.where}.{m}" for m in name.members}
            where[said] = page
    return where if package == "invconv_jax" else where | {"init": ""}  # each class has its own


def _gallery(folder: Path) -> list[str | dict[str, str]]:
    """Write a page for each example: what it shows, its picture, its source."""
    (folder / "gallery").mkdir()
    index = "# Gallery\n\nShort programs: `python -m invconv example NAME` runs one.\n"
    pages: list[str | dict[str, str]] = ["gallery/index.md"]
    for name in NAMES:
        program = source(name)
        title, _, rest = (ast.get_docstring(ast.parse(program)) or "").partition(".\n")
        address = f"../benchmarks/results/gallery/{name}.jpg"
        picture, body = f"[![{title}]({address})]", program.partition('"""\n\n')[2]
        index += f"\n## [{title}]({name}.md)\n\n{picture}({name}.md)\n"
        text = f"# {title}\n\n`python -m invconv example {name}`\n\n{rest}\n\n{picture}({address})"
        text += f"\n\n``` {{.python data-search-exclude=true}}\n{body}```\n"
        (folder / "gallery" / f"{name}.md").write_text(text, encoding="utf-8")
        pages.append({name.replace("_", " "): f"gallery/{name}.md"})
    (folder / "gallery" / "index.md").write_text(index, encoding="utf-8")
    return pages


def _api(folder: Path, package: str) -> list[str | dict[str, str]]:
    """Write a page for each public name of a package, and one that lists them."""
    names, index = public(package), f"api/{package}/index.md"
    (folder / index).parent.mkdir(parents=True, exist_ok=True)
    doc = inspect.getdoc(importlib.import_module(package)) or ""
    doc = re.sub(r"(?ms)^(>>> .*?)(?=\n\n|\Z)", r"```pycon\n\1\n```", doc)
    docs = [(inspect.getdoc(n.value) or "").partition("\n\n")[0].replace("\n", " ") for n in names]
    rows = [(f"`{n.name}`", doc.replace("|", r"\|")) for n, doc in zip(names, docs, strict=True)]
    table = "\n".join(markdown(("name", "what it is"), rows))
    (folder / index).write_text(f"# {package}\n\n{doc}\n\n{table}\n", encoding="utf-8")
    for name in names:
        made = Protocol not in getattr(name.value, "__bases__", ())  # whose constructor is typing's
        text = f"`from {package} import {name.name}`\n\n::: {name.where}\n    options: "
        text += f"{{members: {name.members or 'false'}, merge_init_into_class: {made}}}\n"
        (folder / name.page).write_text(text, encoding="utf-8")
    return [index, *({n.name: n.page} for n in names)]


class Name(NamedTuple):
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
    def members(self) -> list[str]:
        """The public methods and properties that are ours, not those of a library's base class."""
        bases = getattr(self.value, "__mro__", ())
        hidden = () if self.package == "invconv.extend" else _FOR_AUTHORS
        ours = [vars(c) for c in bases if c.__module__.startswith("invconv")]
        own = dict.fromkeys(n for c in ours for n in c if n[0] != "_" and n not in hidden)
        return [n for n in own if callable(v := getattr(self.value, n)) or isinstance(v, property)]


def public(package: str) -> list[Name]:
    """Return the classes and functions that a package offers, in alphabetical order.

    A name that ``invconv`` offers too has its page there.
    """
    module, above = importlib.import_module(package), importlib.import_module(PACKAGES[0])
    names = {*module.__all__} - ({*above.__all__} if package == "invconv.extend" else set())
    values = {name: getattr(module, name) for name in sorted(names, key=str.lower)}
    return [Name(package, n, v) for n, v in values.items() if not inspect.ismodule(v)]
