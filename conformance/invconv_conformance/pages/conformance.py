"""A conformance run as an HTML page: the share of its bound that each law uses up, and failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from invconv_conformance.pages.templates import Line, Styled, render
from invconv_conformance.pages.words import percent, shade, short, tally

Found = Mapping[str, Any]  # a result of the document

_COLUMN = ("library", "device", "mode", "dtype")
_SEVERITY = ("fail", "error", "expected")
_KIND = {"pass": "pass", "expected": "unclear"}
_LOWEST = -4  # decade at which the colours of the shares begin: 0.01 %


def as_page(document: Mapping[str, Any]) -> str:
    """Return the page that shows a document of schema ``invconv-conformance/1``."""
    found = cells(document)
    laws = list(dict.fromkeys(cell.law for cell in found))
    counts = sum((cell.counts for cell in found), Counter[str]())
    return render(
        __package__,
        "conformance.html",
        run=document,
        tally=tally(counts),
        laws=laws,
        cells={(cell.law, cell.column): cell for cell in found},
        names=[_name(column) for column in document["columns"]],
        heads=[_spans(document["columns"], *_COLUMN[:n]) for n in (1, 3, 4)],
        edges=_edges(document["columns"]),
        failing=[cell for cell in found if cell.broken],
        closest=max((c for c in found if c.share), key=lambda c: c.share, default=None),
        details=[_details(document, i, found, law) for i, law in enumerate(laws)],
        matrices=list(_matrices(document)),
        percent=percent,
    )


@dataclass
class Cell:
    """The results of a law in a column: their number by status, the worst pass, all that fails.

    Attributes
    ----------
    law : str
    column : int
        The position of the column in the document.
    counts : Counter
        Results by status.
    worst : result or None
        The result that passes with the largest share of its bound.
    bad : list of results
        The results that do not pass, the worst ones first.
    """

    law: str
    column: int
    counts: Counter[str] = field(default_factory=Counter)
    worst: Found | None = None
    bad: list[Found] = field(default_factory=list)

    def add(self, result: Found) -> None:
        """Take a result in."""
        self.counts[result["status"]] += 1
        if result["status"] in _SEVERITY:
            self.bad.append(result)
        elif result["status"] == "pass" and (
            self.worst is None or or_inf(share(result)) > self.share
        ):
            self.worst = result

    @property
    def share(self) -> float:
        """The share of its bound that the worst pass uses up."""
        return 0.0 if self.worst is None else or_inf(share(self.worst))

    @property
    def broken(self) -> int:
        """The number of results that fail or end in an error."""
        return self.counts["fail"] + self.counts["error"]

    @cached_property
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
        if self.broken:
            return "fail"
        if not self.counts["pass"]:
            return "expected" if self.counts["expected"] else "none"
        return shade(self.share, _LOWEST)

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        return "; ".join(tally(self.counts))


def cells(document: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each law and column that the document has results of."""
    places = {tuple(c[k] for k in _COLUMN): i for i, c in enumerate(document["columns"])}
    found: dict[tuple[str, int], Cell] = {}
    for result in document["results"]:
        key = (result["law"], places[tuple(result[k] for k in _COLUMN)])
        found.setdefault(key, Cell(*key)).add(result)
    for cell in found.values():
        cell.bad.sort(key=lambda r: (_SEVERITY.index(r["status"]), -or_inf(share(r))))
    return list(found.values())


def share(result: Found) -> float | None:
    """Return how much of its bound a result uses up, None for an infinite share."""
    error, bound = result["error"], result["bound"]
    if error == 0:
        return 0.0
    value = error / bound if error is not None and bound else math.inf
    return value if math.isfinite(value) else None


def or_inf(value: float | None) -> float:
    """Return a number of the document, in which None is an infinite one."""
    return math.inf if value is None else value


class Span(NamedTuple):
    """A heading over several columns, and whether a library or a device begins there."""

    text: str
    soft: str
    width: int
    edge: str


def _place(column: Found) -> str:
    return f"{column['device']} · {column['mode']}"


def _name(column: Found) -> str:
    return f"{column['title']} {_place(column)} {column['dtype']}"


def _edges(columns: Sequence[Found]) -> list[str]:
    """Return for each column whether a library or a device begins with it."""
    pairs = zip([None, *columns], columns, strict=False)
    return [
        "library"
        if one is None or one["library"] != two["library"]
        else "device"
        if _place(one) != _place(two)
        else ""
        for one, two in pairs
    ]


def _spans(columns: Sequence[Found], *keys: str) -> list[Span]:
    """Return one row of the heading: a span for columns that have the same keys."""
    edges, found = _edges(columns), []
    for _, group in groupby(enumerate(columns), lambda c: [c[1][k] for k in keys]):
        some = list(group)
        first, column = some[0]
        text = column["title"] if keys == _COLUMN[:1] else _place(column)
        text = column["dtype"] if keys == _COLUMN else text
        soft = column["version"] if keys == _COLUMN[:1] else ""
        found.append(Span(text, soft, len(some), edges[first]))
    return found


def _details(document: Found, number: int, found: Sequence[Cell], law: str) -> list[Line]:
    """Return a line for the worst pass of each column, and for every result that does not pass."""
    lines = []
    for cell in sorted((c for c in found if c.law == law), key=lambda c: c.column):
        name, at = _name(document["columns"][cell.column]), f"law-{number}-{cell.column}"
        for i, result in enumerate(([cell.worst] if cell.worst else []) + cell.bad):
            lines.append(_detail(name, result, "" if i else at))  # a link leads to the first
    return lines


def _detail(name: str, result: Found, at: str) -> Line:
    used = share(result)
    numbers = (
        short(result["error"]),
        short(result["bound"]),
        "∞" if used is None else percent(used),
    )
    reason = f" ({result['reason']})" if result.get("reason") else ""
    cells = (
        name,
        Styled(result["status"], _KIND.get(result["status"], "miss")),
        Styled(result["case"], "code"),
        result["what"] + reason,
        *(("–", "–", "–") if result["status"] == "error" else numbers),
        Styled(result["reproduce"], "text code"),
    )
    return Line(cells, id=at)


@dataclass(frozen=True)
class Matrix:
    """How far libraries are apart in a quantity and dtype; the lower triangle, row by row."""

    dtype: str
    quantity: str
    names: list[str]
    rows: list[list[Found | None]]

    def text(self, entry: Found) -> str:
        """Return the difference of two libraries."""
        return short(entry["difference"])

    def kind(self, entry: Found) -> str:
        """Return the CSS class of a difference."""
        return "fail" if entry["difference"] is None else shade(entry["difference"], 0)


def _matrices(document: Found) -> Iterator[Matrix]:
    """Yield a matrix for each dtype and quantity that libraries are compared in."""
    order = list(dict.fromkeys(" ".join(c[k] for k in _COLUMN[:3]) for c in document["columns"]))
    kind = itemgetter("dtype", "quantity")
    for (dtype, quantity), group in groupby(sorted(document["agreement"], key=kind), kind):
        pairs = {frozenset((entry["a"], entry["b"])): entry for entry in group}
        known = {name for pair in pairs for name in pair}
        names = [n for n in order if n in known] + sorted(known - set(order))
        rows = [[pairs.get(frozenset((a, b))) for b in names[:i]] for i, a in enumerate(names)]
        yield Matrix(dtype, quantity, names, rows)
