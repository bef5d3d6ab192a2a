"""Two results side by side: the rows whose stated spreads do not overlap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich import box
from rich.table import Table

from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.suites.group import as_text


@dataclass(frozen=True)
class Change:
    """A row of both results.

    Attributes
    ----------
    row : Row
        Of the second one.
    measure : {"ratio", "time"}
        The ratio to the library's plain convolution where there is one, which other machines and
        other days share; else the time, if both ran on one machine.
    before, after : Interval
    verdict : {"same", "faster", "slower"}
        "same" where the intervals overlap.
    """

    row: Row
    measure: str
    before: Interval
    after: Interval

    @property
    def verdict(self) -> str:
        """One of "same", where the intervals overlap, "faster" and "slower"."""
        if self.before.overlaps(self.after):
            return "same"
        return "faster" if self.after.value < self.before.value else "slower"


def changes(before: Result, after: Result) -> tuple[list[Change], list[str]]:
    """Return the rows of both results, and why others are not compared."""
    there = before.environment, after.environment
    alike = {name: there[0][name] == there[1][name] for name in ("cpu", "gpus")}
    old, new = ({r.key: r for r in result.rows} for result in (before, after))
    found, notes = [], Counter[str]()
    for place, row in new.items():
        if place not in old:
            notes["only in the second result"] += 1
            continue
        was = old[place]
        if not was.passes or not row.passes:
            notes["not measured in one of them"] += 1
        elif row.role != "plain" and row.ratio is not None and was.ratio is not None:
            found.append(Change(row, "ratio", was.ratio, row.ratio))
        elif alike["cpu"] and (row.device == "cpu" or alike["gpus"]):
            found.append(Change(row, "time", _time(was), _time(row)))
        else:
            notes["times of different processors or GPUs"] += 1
    notes["only in the first result"] = len(old.keys() - new.keys())
    return found, [f"{count} rows not compared: {why}" for why, count in notes.items() if count]


def _time(row: Row) -> Interval:
    """Return the median with p10 and p90: a time varies by more than its sampling error."""
    assert row.p10 is not None
    assert row.p90 is not None
    return Interval(row.seconds, row.p10, row.p90)


def table(found: list[Change], *, everything: bool = False) -> Table:
    """Return the rows whose verdict is not "same", or all."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("what", "library", "", "before", "after", "verdict"):
        shown.add_column(name, justify="right" if name in ("before", "after") else "left")
    for change in found:
        if change.verdict == "same" and not everything:
            continue
        row = change.row
        where = f"{as_text(row.shape)} {row.dtype} {row.threads}t"
        color = {"same": "", "faster": "green", "slower": "red"}[change.verdict]
        shown.add_row(
            f"{row.suite} {row.map} {where}",
            f"{row.library} {row.contender}",
            change.measure,
            _text(change.before, change.measure),
            _text(change.after, change.measure),
            f"[{color}]{change.verdict}[/]" if color else change.verdict,
        )
    return shown


def _text(interval: Interval, measure: str) -> str:
    scale = 1e3 if measure == "time" else 1
    unit = " ms" if measure == "time" else ""
    return (
        f"{interval.value * scale:.3g}{unit} "
        f"({interval.low * scale:.3g}-{interval.high * scale:.3g})"
    )


def summary(found: list[Change]) -> str:
    """Return a sentence that counts the verdicts."""
    counts = Counter((c.measure, c.verdict) for c in found)
    parts = []
    for measure in ("ratio", "time"):
        total = sum(n for (m, _), n in counts.items() if m == measure)
        if total:
            parts.append(
                f"{counts[measure, 'same']} of {total} {measure}s agree within the stated spread, "
                f"{counts[measure, 'faster']} faster, {counts[measure, 'slower']} slower"
            )
    return "; ".join(parts) or "nothing to compare"
