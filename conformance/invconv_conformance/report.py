"""A run as JSON, which ``conformance.schema.json`` describes, in the terminal, and as an HTML page.

All show the share of its bound that each law uses up, failures, and who agrees with whom.
"""

import dataclasses
import datetime
import itertools
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import invconv
from invconv_conformance import pages
from invconv_conformance.laws import LAWS
from invconv_conformance.laws.law import Floats, largest
from invconv_conformance.libraries import Column, lacking, target_of
from invconv_conformance.run import NAMED, LawVerdict
from invconv_conformance.truth.bounds import C_FACTOR, EPS, scales

Output = tuple[Column, str, dict[str, Floats]]  # a column, a case and its results
Found = dict[str, Any]  # a run's document, or a column or a result in it


def agreement(outputs: Iterable[Output]) -> list[dict[str, Any]]:
    """Return the largest difference for every dtype, quantity and pair of columns, and its case."""
    found: dict[tuple[str, str], dict[Column, Floats]] = {}
    for column, case, arrays in outputs:
        for quantity, array in arrays.items():
            found.setdefault((case, quantity), {})[column] = array
    worst: dict[tuple[str, str, str, str], tuple[float, str]] = {}
    for (case, quantity), columns in found.items():
        for (a, x), (b, y) in itertools.combinations(columns.items(), 2):
            if a.dtype == b.dtype:
                first, second = sorted(" ".join(column[:3]) for column in (a, b))
                key = (a.dtype, quantity, first, second)
                place = (difference(x, y, quantity, a.dtype), case)
                worst[key] = max(worst.get(key, (-1.0, "")), place)
    names = "dtype", "quantity", "a", "b", "difference", "case", "condition"
    rows = []
    for key, (gap, case) in sorted(worst.items()):
        condition = scales(NAMED[case].conv(), NAMED[case].spatial_shape).condition
        rows.append(dict(zip(names, (*key, gap, case, condition), strict=True)))
    return rows


def difference(x: Floats, y: Floats, quantity: str, dtype: str) -> float:
    """Return the difference of two results in eps x max|result|, inf if they are not comparable."""
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.inf
    scale, gap = max(largest(x), largest(y)), largest(x - y)
    if quantity == "log_det":
        scale = max(scale, 1.0)
        dtype = "float64" if dtype == "float64" else "float32"
    return gap / (EPS[dtype] * scale) if gap else 0.0


def document(
    command: str,
    columns: Sequence[Column],
    results: Sequence[LawVerdict],
    not_run: list[str],
    agreement: Iterable[Found],
    seconds: float,
) -> Found:
    """Return the report of a run: its command, its columns, and why libraries were not run."""
    libraries = {column.library: target_of(column).library for column in columns}
    missing = {name: lacking(library.namespace()) for name, library in libraries.items()}
    return {
        "schema": "invconv-conformance/1",
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command,
        "seconds": round(seconds, 1),
        "c": C_FACTOR,
        "columns": [
            c._asdict() | {n: getattr(libraries[c.library], n) for n in ("title", "version")}
            for c in columns
        ],
        "not_run": not_run,
        "lacks": {name: functions for name, functions in missing.items() if functions},
        "laws": {n: {"definition": x.definition, "source": x.source} for n, x in LAWS.items()},
        "results": [_plain(_fields(r)) for r in results],
        "agreement": list(map(_plain, agreement)),
    }


def _fields(result: LawVerdict) -> Found:
    fields = vars(result) | result.column._asdict() | {"reproduce": result.reproduce}
    left_out = {"column", "rules", "calls"}
    left_out |= {name for name in ("frames", "suspects") if not getattr(result, name)}
    return {name: value for name, value in fields.items() if name not in left_out}


def _plain(fields: Found) -> Found:
    """Write an infinite number as null: JSON has none."""
    infinite = {k for k, v in fields.items() if isinstance(v, float) and not math.isfinite(v)}
    return fields | dict.fromkeys(infinite)


_SHOWN = 12  # kinds of failure that the terminal lists; the files have them all


def show(console: Console, run: Found) -> None:
    """Print the tables, each kind of failure, the libraries that did not run, and the totals."""
    results: list[Found] = run["results"]
    if results:
        console.print("Share of its bound that the worst case of each law uses up:")
    for table in _tables(run):
        console.print(table)
    _print_failures(console, [r for r in results if r["status"] in ("fail", "error")])
    for name, missing in run["lacks"].items():
        console.print(f"{name} lacks what the core needs: {', '.join(missing)}", highlight=False)
    for reason in run["not_run"]:
        console.print(f"not run: {reason}")
    counts = Counter(r["status"] for r in results)
    known = f", {counts['expected']} fail as expected" if counts["expected"] else ""
    spoken = [r for r in results if r["status"] != "not applicable"]
    laws, cases = (len({r[name] for r in spoken}) for name in ("law", "case"))
    ran = f"{laws} laws on {cases} cases, {run['seconds']:.0f} s"
    console.print(f"{counts['pass']} of {len(spoken)} hold{known}: {ran}")


def _print_failures(console: Console, bad: list[Found]) -> None:
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for r in bad:
        kind = r["what"] if r["status"] == "error" else r["law"]
        groups.setdefault((r["library"], r["status"], kind), []).append(r)
    for group in list(groups.values())[:_SHOWN]:
        worst = max(group, key=share)
        console.print(f"[red]{worst['status']}[/] {worst['law']}, {worst['case']}: ", end="")
        lines = [worst["what"], *worst.get("frames", "").splitlines()]
        if worst["status"] == "fail":
            error, bound = (math.inf if worst[n] is None else worst[n] for n in ("error", "bound"))
            lines.append(f"  error {error:.3g}, bound {bound:.3g}")
        if suspects := worst.get("suspects"):
            lines.append(f"  array functions that wrong numbers share: {suspects}")
        if len(group) > 1:
            laws, cases = (dict.fromkeys(r[name] for r in group) for name in ("law", "case"))
            of = "one case" if len(cases) == 1 else f"{len(cases)} cases"
            lines.append(f"  {len(group)} times, in {', '.join(laws)}, of {of}")
        for line in (*lines, f"  {worst['reproduce']}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(groups) > _SHOWN:
        console.print(f"and {len(groups) - _SHOWN} more kinds; --json and --html have them all")


def _tables(run: Found) -> Iterator[Table]:
    found = {(cell.law, cell.column): cell for cell in cells(run)}
    for name in dict.fromkeys(column["library"] for column in run["columns"]):
        places = [i for i, column in enumerate(run["columns"]) if column["library"] == name]
        table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
        table.add_column("law", no_wrap=True)
        for column in (run["columns"][i] for i in places):
            mode = "" if column["mode"] == "eager" else f" {column['mode']}"
            table.add_column(f"{column['device']}{mode}\n{column['dtype']}", justify="right")
        for law in [law for law in run["laws"] if any((law, i) in found for i in places)]:
            mine = [found.get((law, i)) for i in places]
            texts = [f"{cell.text} {cell.mark}".strip() if cell else "-" for cell in mine]
            table.add_row(law, *(f"[red]{t}[/]" if t[0] in "✕!" else t for t in texts))
        yield table


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


def as_page(document: Found) -> str:
    """Return the page that shows a document of schema ``invconv-conformance/1``."""
    found, columns = cells(document), document["columns"]
    names = ["{title} {device} · {mode} {dtype}".format(**column) for column in columns]
    laws = list(dict.fromkeys(cell.law for cell in found))
    return pages.render(
        pages.__name__,
        "conformance.html",
        run=document,
        tally=tally(sum((cell.counts for cell in found), Counter[str]())),
        laws=laws,
        cells={(cell.law, cell.column): cell for cell in found},
        names=names,
        columns=[c | {"edge": edge} for c, edge in zip(columns, _edges(columns), strict=True)],
        failing=[cell for cell in found if cell.broken],
        closest=max((c for c in found if c.share), key=lambda c: c.share, default=None),
        details=[list(_details(names, i, found, law)) for i, law in enumerate(laws)],
        matrices=list(_matrices(document)),
        percent=percent,
        short=short,
        shade=shade,
    )


@dataclasses.dataclass(frozen=True)
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
        """The number of expected failures, beside the checks that hold."""
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


def cells(document: Found) -> list[Cell]:
    """Return a cell for each law and column that the document has results of."""
    names = itemgetter(*Column._fields)
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


def _edges(columns: Sequence[Found]) -> list[str]:
    edges = []
    for one, two in zip([{}, *columns], columns, strict=False):
        new = [name for name in Column._fields[:3] if one.get(name) != two[name]]
        edges.append("" if not new else "library" if new[0] == "library" else "device")
    return edges


def _details(names: list[str], number: int, found: list[Cell], law: str) -> Iterator[pages.Line]:
    for cell in sorted((c for c in found if c.law == law), key=lambda c: c.column):
        at = f"law-{number}-{cell.column}"  # a link leads to the first
        for result in ([cell.worst] if cell.worst else []) + cell.bad:
            status = result["status"]
            numbers = [short(result[name]) for name in ("error", "bound")]
            numbers.append(percent(share(result)))
            texts = (
                names[cell.column],
                pages.Styled(status, _KIND.get(status, "miss")),
                pages.Styled(result["case"], "code"),
                result["what"] + (f" ({result['reason']})" if result.get("reason") else ""),
                *("–––" if status == "error" else numbers),
                pages.Styled(result["reproduce"], "text code"),
            )
            yield pages.Line(texts, id=at)
            at = ""


def _matrices(document: Found) -> Iterator[dict[str, Any]]:
    """Yield how far libraries are apart, for each dtype and quantity: a lower triangle."""
    order = [" ".join(c[k] for k in Column._fields[:3]) for c in document["columns"]]
    kind = itemgetter("dtype", "quantity")
    for (dtype, quantity), group in itertools.groupby(
        sorted(document["agreement"], key=kind), kind
    ):
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
