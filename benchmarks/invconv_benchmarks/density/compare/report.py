"""A comparison in tables and words, the same for the terminal and for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from invconv_benchmarks.density.compare.published import DATA, PUBLISHED, SOURCE
from invconv_benchmarks.density.compare.result import Rate, Result, Row, Spread
from invconv_benchmarks.density.compare.summary import best, findings
from invconv_benchmarks.density.evaluation.sampling import SamplingTime
from invconv_benchmarks.density.models.appearance import title
from invconv_benchmarks.measure.environment import busy


@dataclass(frozen=True)
class Section:
    """A sentence about a table, and the table: the head of each column, and rows of cells."""

    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def table(self) -> Table:
        """Return the table for a terminal."""
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        for name in self.head:
            plain = name.replace("**", "")
            table.add_column(plain, justify="right" if name else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> list[str]:
        """Return the lines for the README."""
        head = [f"| {' | '.join(self.head)} |", "|---" * len(self.head) + "|"]
        lines = [f"| {' | '.join(row)} |" for row in self.rows]
        return [self.about, "", *head, *lines, ""]


def sections(result: Result) -> Iterator[Section]:
    """Yield the rows, the times of samples, the learning rates if any, and published numbers."""
    settings, data = result.training, result.data
    yield Section(
        f"{data['name'].capitalize()}, {data['test']} test tiles, {settings['steps']} steps of "
        f"{settings['batch']} tiles, {_seeds(result)}, one thread a run, "
        f"{result.environment['cpu']}, torch {result.environment['versions']['torch']}, "
        f"{result.date[:10]}{_busy(result)}. Mean ± standard deviation over seeds; differences are "
        "paired: the same tiles, order and noise. ms: of a step; 100 of: time for 100 samples; "
        f"paper: **other images**, {result.paper.get('of', 'no numbers')}.",
        ("", "rate", "params", "bits/dim", "from plain", "ms", "100 of", "paper"),
        [_cells(row, result) for row in result.rows],
    )
    slow = [time for time in result.sampling if time.model in ("emerging", "maf")]
    count = result.sampling[0].count if result.sampling else 0
    yield Section(
        f"Time for {count} samples, where there are several ways:",
        ("", "way", "time"),
        [(title(time.model), time.method, _seconds(time) + _part(time)) for time in slow],
    )
    if result.sweep:
        yield _sweep(result)
    ours = {row.mixing: _spread(row.bits, "–", "") for row in result.rows}
    yield Section(
        f"Published, **of other images and larger models**: {SOURCE}; ours beside them:",
        ("", f"ours here, {data['name']}", *DATA, "parameters"),
        [(p.name, ours.get(p.mixing or "", "–"), *p.bits, p.parameters) for p in PUBLISHED],
    )


def markdown(result: Result) -> list[str]:
    """Return the lines of the README's tables, and of the findings."""
    lines = [line for section in sections(result) for line in section.markdown()]
    return [*lines, *(f"- {sentence}" for sentence in findings(result.rows, result.sweep))]


def _seeds(result: Result) -> str:
    return f"{len(result.seeds)} seed{'s' * (len(result.seeds) > 1)}"


def _busy(result: Result) -> str:
    if not busy(result.load, result.environment["cores"]):
        return ""
    return ", **on a machine that was busy with other work: its times mean little**"


def _cells(row: Row, result: Result) -> list[str]:
    stopped = any(run.error for run in row.runs)
    time = next((time for time in result.sampling if time.model == row.mixing), None)
    return [
        title(row.mixing),
        f"{row.learning_rate:g}",
        f"{row.parameters:,}".replace(",", " ") if row.parameters else "–",
        _spread(row.bits, "stopped" if stopped else "–", ""),
        _spread(row.difference, "–", "+"),
        f"{1e3 * row.seconds_per_step:.0f}" if row.seconds_per_step else "–",
        _seconds(time) if time else "–",
        result.paper.get(row.mixing, "–"),
    ]


def _seconds(time: SamplingTime) -> str:
    seconds: float = time.seconds
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _part(time: SamplingTime) -> str:
    return f" (from {time.share:.1%} of the work)" if time.share < 1 else ""


def _spread(value: Spread | None, absent: str, sign: str) -> str:
    if value is None:
        return absent
    text = f"{value.mean:{sign}.3f}"
    if sign and abs(value.mean) < 1:
        text = text.replace("0", "", 1)
    return text if value.std is None else f"{text} ± " + f"{value.std:.3f}".removeprefix("0")


def _sweep(result: Result) -> Section:
    rates = sorted({entry.learning_rate for entry in result.sweep})
    part = result.data["watched"]
    told = ", as there is no validation part" if part == "test" else ""
    return Section(
        f"bits/dim of {result.data[part]} {part} tiles{told} by learning rate, seed "
        f"{result.sweep[0].seed}, * the best:",
        ("", *(f"{rate:g}" for rate in rates)),
        [(title(mixing), *cells) for mixing, cells in by_rate(result.sweep, rates).items()],
    )


def by_rate(entries: Sequence[Rate], rates: Sequence[float]) -> dict[str, list[str]]:
    """Return each row's cells, the best one starred."""
    there = {(e.mixing, e.learning_rate): e.validation for e in entries}
    winners = best(entries)

    def cell(mixing: str, rate: float) -> str:
        if (mixing, rate) not in there:
            return "–"
        bits = there[mixing, rate]
        if bits is None:
            return "stopped"
        return f"{bits:.3f}{'*' if winners[mixing][1] == rate else ''}"

    mixings = dict.fromkeys(entry.mixing for entry in entries)
    return {mixing: [cell(mixing, rate) for rate in rates] for mixing in mixings}
