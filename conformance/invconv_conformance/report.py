"""A run as JSON, which ``conformance.schema.json`` describes, and in the terminal; who agrees."""

import dataclasses
import datetime
import itertools
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import invconv
from invconv_conformance.laws import LAWS
from invconv_conformance.laws.law import Floats, largest
from invconv_conformance.libraries.table import Column, lacking, target_of
from invconv_conformance.pages.conformance import Found, cells, share
from invconv_conformance.run import NAMED, Result
from invconv_conformance.truth.bounds import C_FACTOR, EPS, scales

Output = tuple[Column, str, dict[str, Floats]]  # of a case in a column


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
    """Return the difference of two results in eps x max|result|, inf where they do not compare."""
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.inf
    scale, gap = max(largest(x), largest(y)), largest(x - y)
    if quantity == "log_det":
        scale = max(scale, 1.0)
        dtype = "float64" if dtype == "float64" else "float32"
    return gap / (EPS[dtype] * scale) if gap else 0.0


Document = dict[str, Any]


def document(
    command: str,
    columns: Sequence[Column],
    results: Sequence[Result],
    not_run: list[str],
    agreement: Iterable[Document],
    seconds: float,
) -> Document:
    """Return the report of a run: its command, its columns, what was not run and why."""
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
        "results": [_plain(dataclasses.asdict(r) | {"reproduce": r.reproduce}) for r in results],
        "agreement": list(map(_plain, agreement)),
    }


def _plain(fields: Document) -> Document:
    """Write an infinite number as null: JSON has none."""
    infinite = {k for k, v in fields.items() if isinstance(v, float) and not math.isfinite(v)}
    return fields | dict.fromkeys(infinite)


_SHOWN = 12  # kinds of failure that the terminal lists; the files have them all


def show(console: Console, run: Document) -> None:
    """Print the tables, each kind of failure, what did not run, and the totals."""
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
        lines = [worst["what"]]
        if worst["status"] == "fail":
            error, bound = (math.inf if worst[n] is None else worst[n] for n in ("error", "bound"))
            lines.append(f"  error {error:.3g}, bound {bound:.3g}")
        if len(group) > 1:
            laws = ", ".join(dict.fromkeys(r["law"] for r in group))
            lines.append(f"  {len(group)} times, in {laws}")
        for line in (*lines, f"  {worst['reproduce']}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(groups) > _SHOWN:
        console.print(f"and {len(groups) - _SHOWN} more kinds; --json and --html have them all")


def _tables(run: Document) -> Iterator[Table]:
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
