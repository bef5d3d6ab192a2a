"""Formulas as MathML, which browsers draw without a script, and links of names: a hook of mkdocs.

Pages and docstrings write TeX between dollars.
"""

import pydoc
import re
from html import unescape
from typing import Any

import griffe
from latex2mathml.converter import convert

from invconv_benchmarks.docs.pages import addresses

_SAID = r'(?<!  )(?<!  \()(?<!<b>)(?<!">)<code>(?P<name>[\w.]+)(\([^<]*\))?</code>'  # in prose
_NAMES = r"(?m)^([a-z_]\w*(?:, [a-z_]\w*)+)((?: : .*)?\n(?:    .*\n?)*)"
_TYPE = r"(?m)^(?:[*\w]+ : |(?=\w+Error, |[A-Za-z`(].*[^\w,\s].*\n    \S))"
_PICTURE = r'<p>((?:<a [^>]*>)?<img alt="([^"]*)"[^>]*>(?:</a>)?)</p>'
_MATHML = {
    r"((?:\[|&#x0(?:0028|002C|003D);)</mo>)<mo>(?=&#x02212;)": r'\1<mo form="prefix">',
    r"<mi>;</mi>": "<mo>;</mo>",
    r"<mo movablelimits": r'<mo lspace="0" rspace=".17em" movablelimits',
    r'<mover accent="true">.*?</mover>': r'<mpadded height=".7em">\g<0></mpadded>',  # as its letter
}


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Return a page whose formulas are MathML, with links at names and captions at pictures."""
    uri, own = page.file.src_uri, page.file.src_uri[4:-3].replace("/", ".")  # package.name, in api/
    names, up = addresses(own.rpartition(".")[0]) | {page.file.name: ""}, "../" * uri.count("/")

    def link(said: re.Match[str]) -> str:
        to = names.get(f"{own}.{said['name']}") or names.get(said["name"])
        return f'<a href="{up}{to}">{said[0]}</a>' if to else said[0]

    if uri.startswith("api/"):
        html = re.sub(r'–\s*<div class="doc-md-description">\s*</div>', "", html)  # says no more
        words = lambda m: re.sub(r"(?P<name>\b[A-Z]\w+)", link, m[1].replace("`", ""))  # noqa: E731
        html = re.sub("\u2060([^<]*)", words, html)
    elif not uri.startswith("gallery/"):
        html = re.sub(_PICTURE, r"<figure>\1<figcaption>\2</figcaption></figure>", html)
    html = re.sub(_SAID, link, html)
    marked = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
    return re.sub(marked, lambda m: _mathml(unescape(m[2]), m[1]), html, flags=re.DOTALL)


class AsWritten(griffe.Extension):
    """Types in a docstring's words: a word joiner, no part of expressions, stops a parser."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mark the types, give each name a row with its own default, and inherit docstrings."""
        if obj.is_function and not obj.docstring and re.match(r"invconv\..*\.[a-z]\w*$", obj.path):
            obj.docstring = griffe.Docstring(pydoc.getdoc(pydoc.locate(obj.path)), parent=obj)
        if obj.docstring:
            each = lambda m: "".join(f"{name}{m[2]}" for name in m[1].split(", "))  # noqa: E731
            text = re.sub(_NAMES, each, obj.docstring.value + "\n")
            obj.docstring.value = re.sub(_TYPE, "\\g<0>\u2060", text).rstrip()


def _mathml(formula: str, tag: str) -> str:
    math = convert(formula, display="block" if tag == "div" else "inline")
    for plain, replacement in _MATHML.items():
        math = re.sub(plain, replacement, math)
    return f'<{tag} class="arithmatex">{math}</{tag}>'
