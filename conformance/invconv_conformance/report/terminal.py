"""A run as the terminal shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from invconv_conformance.pages.conformance import Found, cells, or_inf, share
from invconv_conformance.report.document import Document

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
    of = counts.total() - counts["not applicable"]
    known = f", {counts['expected']} fail as expected" if counts["expected"] else ""
    laws, cases = (len({r[name] for r in results}) for name in ("law", "case"))
    ran = f"{laws} laws on {cases} cases, {run['seconds']:.0f} s"
    console.print(f"{counts['pass']} of {of} hold{known}: {ran}")


def _print_failures(console: Console, bad: list[Found]) -> None:
    """Print each kind of failure once, with its worst case."""
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for r in bad:
        kind = r["what"] if r["status"] == "error" else r["law"]
        groups.setdefault((r["library"], r["status"], kind), []).append(r)
    for group in list(groups.values())[:_SHOWN]:
        worst = max(group, key=lambda r: or_inf(share(r)))
        console.print(f"[red]{worst['status']}[/] {worst['law']}, {worst['case']}: ", end="")
        lines = [worst["what"]]
        if worst["status"] == "fail":
            error, bound = (or_inf(worst[n]) for n in ("error", "bound"))
            lines.append(f"  error {error:.3g}, bound {bound:.3g}")
        if len(group) > 1:
            laws = ", ".join(dict.fromkeys(r["law"] for r in group))
            lines.append(f"  {len(group)} times, in {laws}")
        for line in (*lines, f"  {worst['reproduce']}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(groups) > _SHOWN:
        console.print(f"and {len(groups) - _SHOWN} more kinds; --json and --html have them all")


def _tables(run: Document) -> Iterator[Table]:
    """Yield a table a library: how much of its bound the worst case of a law uses up."""
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
