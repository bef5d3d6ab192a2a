"""What a run found, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from invconv_conformance.report.run import Run
from invconv_conformance.run.result import Result

_SHOWN = 12  # kinds of failure that the terminal lists; the files have them all


def show(console: Console, run: Run) -> None:
    """Print the tables, each kind of failure, what did not run, and the totals."""
    if run.results:
        console.print("Share of its bound that the worst case of each law uses up:")
    for table in summaries(run):
        console.print(table)
    _print_failures(console, [r for r in run.results if r.bad])
    for name, missing in run.lacks.items():
        console.print(f"{name} lacks what the core needs: {', '.join(missing)}", highlight=False)
    for reason in run.not_run:
        console.print(f"not run: {reason}")
    laws, cases = ({getattr(r, name) for r in run.results} for name in ("law", "case"))
    ran = f"{len(laws)} laws on {len(cases)} cases, {run.seconds:.0f} s"
    console.print(_totals(run.results), ran)


def _print_failures(console: Console, bad: list[Result]) -> None:
    """Print each kind of failure once, with its worst case."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for r in bad:
        groups.setdefault(
            (r.library, r.status, r.what if r.status == "error" else r.law), []
        ).append(r)
    for group in list(groups.values())[:_SHOWN]:
        worst = max(group, key=lambda r: r.share)
        console.print(f"[red]{worst.status}[/] {worst.law}, {worst.case}: ", end="")
        console.print(worst.what, highlight=False, markup=False)
        if worst.status == "fail":
            console.print(f"  error {worst.error:.3g}, bound {worst.bound:.3g}", highlight=False)
        if len(group) > 1:
            laws = ", ".join(dict.fromkeys(r.law for r in group))
            console.print(f"  {len(group)} times, in {laws}", highlight=False)
        console.print(f"  {worst.reproduce}", highlight=False, markup=False, soft_wrap=True)
    if len(groups) > _SHOWN:
        console.print(f"and {len(groups) - _SHOWN} more kinds; --json and --html have them all")


def _totals(results: list[Result]) -> str:
    ran = [r for r in results if r.status != "not applicable"]
    known = sum(r.status == "expected" for r in ran)
    text = f"{sum(r.status == 'pass' for r in ran)} of {len(ran)} hold"
    return f"{text}, {known} fail as expected:" if known else f"{text}:"


def summaries(run: Run) -> Iterator[Table]:
    """Yield a table a library: how much of its bound the worst case of a law uses up."""
    for name in dict.fromkeys(column.library for column in run.columns):
        columns = [column for column in run.columns if column.library == name]
        table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
        table.add_column("law", no_wrap=True)
        for column in columns:
            mode = "" if column.mode == "eager" else f" {column.mode}"
            table.add_column(f"{column.device}{mode}\n{column.dtype}", justify="right")
        mine = [r for r in run.results if r.library == name]
        for law in dict.fromkeys(r.law for r in mine):
            rows = [r for r in mine if r.law == law]
            table.add_row(law, *(_cell([r for r in rows if r.column == c]) for c in columns))
        yield table


def _cell(results: list[Result]) -> str:
    bad = sum(r.bad for r in results)
    if bad:
        return f"[red]{bad} fail[/]"
    held = [r for r in results if r.status == "pass"]
    known = len([r for r in results if r.status == "expected"])
    worst = max((r.share for r in held), default=None)
    text = "-" if worst is None else f"{worst:.1%}" if worst else "ok"
    return f"{text} ({known} known)" if known else text
