"""A conformance run as an HTML page: the share of its bound that each law uses up, and failures."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from invconv_conformance.pages.templates import Line, Styled, render

Found = Mapping[str, Any]  # a result of the document, or a column

_COLUMN = ("library", "device", "mode", "dtype")
_SEVERITY = ("fail", "error", "expected")
_KIND = {"pass": "pass", "expected": "unclear"}
_LOWEST = -4  # decade at which the colours of the shares begin: 0.01 %
_STATUS = {
    "pass": ("check holds", "checks hold"),
    "fail": ("fails", "fail"),
    "error": ("ends in an error", "end in an error"),
    "expected": ("fails as expected", "fail as expected"),
    "not applicable": ("does not apply", "do not apply"),
}


def as_page(document: Mapping[str, Any]) -> str:
    """Return the page that shows a document of schema ``invconv-conformance/1``."""
    found, columns = cells(document), document["columns"]
    laws = list(dict.fromkeys(cell.law for cell in found))
    return render(
        __package__,
        "conformance.html",
        run=document,
        tally=tally(sum((cell.counts for cell in found), Counter[str]())),
        laws=laws,
        cells={(cell.law, cell.column): cell for cell in found},
        names=[_name(column) for column in columns],
        columns=[c | {"edge": edge} for c, edge in zip(columns, _edges(columns), strict=True)],
        failing=[cell for cell in found if cell.broken],
        closest=max((c for c in found if c.share), key=lambda c: c.share, default=None),
        details=[list(_details(columns, i, found, law)) for i, law in enumerate(laws)],
        matrices=list(_matrices(document)),
        percent=percent,
        short=short,
        shade=shade,
    )


@dataclass(frozen=True)
class Cell:
    """The results of a law in a column."""

    law: str
    column: int  # its position in the document
    counts: Counter[str]  # results by status
    worst: Found | None  # the result that passes with the largest share of its bound
    bad: list[Found]  # the results that do not pass, the worst ones first

    @property
    def share(self) -> float:
        """The share of its bound that the worst pass uses up."""
        return 0.0 if self.worst is None else share(self.worst)

    @property
    def broken(self) -> int:
        """The number of results that fail or end in an error."""
        return self.counts["fail"] + self.counts["error"]

    @property
    def text(self) -> str:
        """The verdict in few characters."""
        if self.broken:
            return f"{'✕' if self.counts['fail'] else '!'} {self.broken:,}"
        if not self.counts["pass"]:
            return f"△{self.counts['expected']:,}" if self.counts["expected"] else "n/a"
        return percent(self.share) if self.share else "ok"

    @property
    def mark(self) -> str:
        """The number of expected failures beside what holds."""
        expected = self.counts["expected"]
        return f"△{expected:,}" if expected and self.counts["pass"] and not self.broken else ""

    @property
    def kind(self) -> str:
        """The CSS class."""
        if self.broken or self.counts["pass"]:
            return "fail" if self.broken else shade(self.share, _LOWEST)
        return "expected" if self.counts["expected"] else "none"

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        return "; ".join(tally(self.counts))


def cells(document: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each law and column that the document has results of."""
    names = itemgetter(*_COLUMN)
    places = {names(column): i for i, column in enumerate(document["columns"])}
    groups: dict[tuple[str, int], list[Found]] = {}
    for result in document["results"]:
        groups.setdefault((result["law"], places[names(result)]), []).append(result)
    found = []
    for key, group in groups.items():
        passed = [r for r in group if r["status"] == "pass"]
        bad = [r for r in group if r["status"] in _SEVERITY]
        bad.sort(key=lambda r: (_SEVERITY.index(r["status"]), -share(r)))
        worst = max(passed, key=share, default=None)
        found.append(Cell(*key, Counter(r["status"] for r in group), worst, bad))
    return found


def share(result: Found) -> float:
    """Return how much of its bound a result uses up; None in the document is an infinite number."""
    error, bound = result["error"], result["bound"]
    if error == 0:
        return 0.0
    return float(error / bound) if error is not None and bound else math.inf


def _name(column: Found) -> str:
    return "{title} {device} · {mode} {dtype}".format(**column)


def _edges(columns: Sequence[Found]) -> list[str]:
    edges = []
    for one, two in zip([{}, *columns], columns, strict=False):
        new = [name for name in _COLUMN[:3] if one.get(name) != two[name]]
        edges.append("" if not new else "library" if new[0] == "library" else "device")
    return edges


def _details(columns: Sequence[Found], number: int, found: list[Cell], law: str) -> Iterator[Line]:
    for cell in sorted((c for c in found if c.law == law), key=lambda c: c.column):
        at = f"law-{number}-{cell.column}"  # a link leads to the first
        for result in ([cell.worst] if cell.worst else []) + cell.bad:
            status = result["status"]
            numbers = [short(result[name]) for name in ("error", "bound")]
            numbers.append(percent(share(result)))
            texts = (
                _name(columns[cell.column]),
                Styled(status, _KIND.get(status, "miss")),
                Styled(result["case"], "code"),
                result["what"] + (f" ({result['reason']})" if result.get("reason") else ""),
                *("–––" if status == "error" else numbers),
                Styled(result["reproduce"], "text code"),
            )
            yield Line(texts, id=at)
            at = ""


def _matrices(document: Found) -> Iterator[dict[str, Any]]:
    """Yield how far libraries are apart, for each dtype and quantity: a lower triangle."""
    order = [" ".join(c[k] for k in _COLUMN[:3]) for c in document["columns"]]
    kind = itemgetter("dtype", "quantity")
    for (dtype, quantity), group in groupby(sorted(document["agreement"], key=kind), kind):
        pairs = {frozenset((entry["a"], entry["b"])): entry for entry in group}
        known = {name for pair in pairs for name in pair}
        names = [*(n for n in dict.fromkeys(order) if n in known), *sorted(known - {*order})]
        rows = [[pairs.get(frozenset((a, b))) for b in names[:i]] for i, a in enumerate(names)]
        yield {"dtype": dtype, "quantity": quantity, "names": names, "rows": rows}


def tally(counts: Mapping[str, int]) -> list[str]:
    """Return words for each status that occurs, such as "3 checks hold"."""
    words = [f"{n:,} {text[n != 1]}" for s, text in _STATUS.items() if (n := counts.get(s, 0))]
    return words or ["0 checks hold"]


def percent(value: float) -> str:
    """Return a share in percent, rounded down from 10 % on."""
    number = 100 * value
    if number in (0, math.inf):
        return "∞" if number else "0"
    if number < 0.01:
        return "<0.01%"
    digits = 2 if number < 1 else 1 if number < 10 else 0
    return f"{number if digits else math.floor(number):.{digits}f}%"


def short(value: float | None) -> str:
    """Return three digits; None, which stands for an infinite number, is "∞"."""
    if value is None:
        return "∞"
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits}e{int(power)}".replace("-", "−")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}" if value else "0"


def shade(value: float | None, lowest: int) -> str:
    """Return the CSS class of a colour, two for each decade from ``lowest`` on, "fail" of None."""
    if value is None:
        return "fail"
    if value <= 0:
        return "s0"
    return f"s{min(8, max(0, math.ceil(2 * (math.log10(value) - lowest) - 1e-9)))}"
