"""Formulas as MathML, which browsers draw without a script, and links to classes: a hook of mkdocs.

Pages write TeX between dollars. Docstrings write plain text: a block of code with " = " in every
line is a formula, and so is a piece of code with one: log|det K| = sum over c of log|s_c|.
"""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_CODE = r'<div class="language-text highlight"><pre><span></span><code>'
_BLOCK = _CODE + r"((?:[^<\n]* = [^<\n]*\n)+)</code></pre></div>"
_INLINE = r"<code>([^<\n]* = [^<\n]*)</code>"
_CLASS = r"<code>invconv\.([A-Z]\w+)</code>"
_TERM = r"(?:(?<!\w)\(([^()]*)\)|([^-+=(),\s][^-+=(),]*))"
_TEX = {  # of a formula in plain text, in this order
    rf"{_TERM} / (?:\(([^()]*)\)|([^\s(),]+))": r"\\frac{\1\2}{\3\4}",
    r"sum over (.*?) of ": r"\\sum_{\1} ",
    r"sum of ": r"\\sum ",
    r"\(([^()]*)\)//(\w+)": r"⌊(\1)/\2⌋",
    r"\b(\w)_hat\b": r"\\hat{\1}",
    r"\b(\w)~": r"\\tilde{\1}",
    r"\^(-?\w+)": r"^{\1}",
    r"\.\.\.": r"\\text{…}",
    r" {2,}": r" \\qquad ",
    r"(?<![\\\w])[A-Za-z]{2,}(?:_[a-z]+)*\b": r"\\text{\g<0>}",  # words and names, upright
    r"(?<=[\w)\]|}!]) (?=[\w(|\\])": r"\\,",
    r"\|([^|]*)\|": r"\\left\\vert \1\\right\\vert ",
}


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Return a page whose formulas are MathML."""
    if page.file.src_uri.startswith("api/"):
        html = re.sub(_INLINE, lambda m: _mathml(tex(m[1]), "span"), html)
        lines = lambda m: "\n".join(_mathml(tex(line), "div") for line in m[1].splitlines())  # noqa: E731
        html = re.sub(_BLOCK, lines, html)
        html = re.sub(_CLASS, r'<a href="../invconv/\1.html">\g<0></a>', html)
    marked = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
    return re.sub(marked, lambda m: _mathml(unescape(m[2]), m[1]), html, flags=re.DOTALL)


def tex(formula: str) -> str:
    """Return a formula of plain text, as HTML or a table's cell has it, in TeX."""
    formula = unescape(formula).replace(r"\|", "|")
    for plain, replacement in _TEX.items():
        formula = re.sub(plain, replacement, formula)
    return formula


def _mathml(formula: str, tag: str) -> str:
    math = convert(formula, display="block" if tag == "div" else "inline")
    return f'<{tag} class="arithmatex">{math}</{tag}>'
