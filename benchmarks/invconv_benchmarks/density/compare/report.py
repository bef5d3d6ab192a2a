"""A comparison in words and tables, for the terminal and for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from invconv_benchmarks.density.compare.published import DATA, PUBLISHED, SOURCE
from invconv_benchmarks.density.compare.result import Rate, Result, Row, Spread
from invconv_benchmarks.density.compare.summary import best, findings
from invconv_benchmarks.density.evaluation.evaluation import NEAR
from invconv_benchmarks.density.evaluation.sampling import SamplingTime
from invconv_benchmarks.density.models.appearance import title
from invconv_benchmarks.measure.environment import busy

_NOTES = """\
bits/dim      of {test} test tiles, averaged parameters: mean ± standard deviation over {seeds}
from plain    the difference from the plain 1×1, seed by seed: mean ± standard deviation
ms/step       of training on one thread, median, while another run had the other core
100 of        time for 100 samples, on one thread
back          the share of {samples} samples ({fewer} of MAF) within {near:g} of their noise again
paper         {of}:
              other images and larger models, not to be compared with the rest"""


def tables(result: Result) -> Iterator[Table]:
    """Yield the tables of rows, of sampling, of learning rates if any, and the published one."""
    yield _table(result)
    yield _sampling(result.sampling)
    if result.sweep:
        yield _sweep(result.sweep, result.data["watched"])
    yield _published(result)


def notes(result: Result) -> str:
    """Say what the columns are."""
    trips = [row.samples for row in result.rows if row.samples]
    count = len(result.seeds)
    return _NOTES.format(
        test=result.data["test"],
        seeds=f"{count} seeds" if count > 1 else "one seed",
        samples=max((trip.count for trip in trips), default=0),
        fewer=min((trip.count for trip in trips), default=0),
        near=NEAR,
        of=result.paper.get("of", "no numbers"),
    )


def _table(result: Result) -> Table:
    settings = result.training
    table = _empty(f"{result.data['name']}, {settings['steps']} steps of {settings['batch']}")
    for name in ("params", "bits/dim", "from plain", "ms/step", "100 of", "back", "paper"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.rows:
        cells = _cells(row, result)
        table.add_row(title(row.mixing), *cells[:-1], f"[dim]{cells[-1]}[/]")
    return table


def _empty(name: str) -> Table:
    """Return a table with a column for the rows' names."""
    table = Table(
        title=name,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    return table


def _cells(row: Row, result: Result) -> list[str]:
    """Return what all tables show of a row, after its name."""
    stopped = any(run.error for run in row.runs)
    times = (time for time in result.sampling if time.model == row.mixing)
    trip, time = row.samples, next(times, None)
    return [
        f"{row.parameters:,}".replace(",", " ") if row.parameters else "–",
        _spread(row.bits, "stopped" if stopped else "–", ""),
        _spread(row.difference, "–", "+"),
        f"{1e3 * row.seconds_per_step:.0f}" if row.seconds_per_step else "–",
        _seconds(time) if time else "–",
        f"{(trip.returned or 0) / trip.count:.0%}" if trip else "–",
        result.paper.get(row.mixing, "–"),
    ]


def _seconds(time: SamplingTime) -> str:
    seconds: float = time.seconds
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _part(time: SamplingTime) -> str:
    return f" (from {time.share:.1%} of the work)" if time.share < 1 else ""


def _sampling(times: Sequence[SamplingTime]) -> Table:
    table = _empty(f"Time for {times[0].count if times else 0} samples, one thread")
    table.add_column("method", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    for time in times:
        share = f"{time.share:.1%} of it" if time.share < 1 else f"{time.repeats} times"
        table.add_row(title(time.model), time.method, _seconds(time), share)
    return table


def _spread(value: Spread | None, absent: str, sign: str) -> str:
    if value is None:
        return absent
    text = f"{value.mean:{sign}.3f}"
    if sign and abs(value.mean) < 1:
        text = text.replace("0", "", 1)
    if value.std is None:
        return text
    return f"{text} ± " + f"{value.std:.3f}".removeprefix("0")


def _published(result: Result) -> Table:
    table = _empty(f"Published bits/dim of other images and larger models, beside ours\n{SOURCE}")
    for name in ("ours here", *DATA, "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    for cells in _beside_published(result):
        table.add_row(*cells)
    return table


def _beside_published(result: Result) -> list[list[str]]:
    """Return the cells of each published row: its name, our bits/dim of that kind, theirs."""
    ours = {row.mixing: _spread(row.bits, "–", "") for row in result.rows}
    return [
        [row.name, ours.get(row.mixing or "", "–"), *row.bits, row.parameters] for row in PUBLISHED
    ]


def _sweep(entries: Sequence[Rate], part: str) -> Table:
    rates = sorted({entry.learning_rate for entry in entries})
    table = _empty(f"bits/dim of the {part} tiles by learning rate, seed {entries[0].seed}")
    for rate in rates:
        table.add_column(f"{rate:g}", justify="right", no_wrap=True)
    for mixing, cells in _by_rate(entries, rates).items():
        table.add_row(title(mixing), *cells)
    return table


def _by_rate(entries: Sequence[Rate], rates: Sequence[float]) -> dict[str, list[str]]:
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


def _busy(result: Result) -> str:
    if not busy(result.load, result.environment["cores"]):
        return ""
    return ", **on a machine that was busy with other work: its times mean little**"


def markdown(result: Result) -> list[str]:
    """Return the lines of the README's tables and of what was found."""
    environment, settings = result.environment, result.training
    seeds = len(result.seeds)
    lines = [
        f"{result.data['name'].capitalize()}, {result.data['test']} test tiles, "
        f"{settings['steps']} steps of {settings['batch']} tiles, "
        f"{seeds} seed{'s' * (seeds > 1)}, one thread a run, {environment['cpu']}, "
        f"torch {environment['versions']['torch']}, {result.date[:10]}{_busy(result)}. "
        "Mean ± standard deviation over seeds; differences are paired: the same tiles, order and "
        "noise.",
        "",
        "| | learning rate | parameters | bits/dim | from plain | ms a step | 100 samples "
        f"| the paper, **other images**: {result.paper.get('of', '–')} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result.rows:
        cells = _cells(row, result)
        cells = [title(row.mixing), f"{row.learning_rate:g}", *cells[:5], *cells[6:]]
        lines.append(f"| {' | '.join(cells)} |")
    slow = [
        f"{title(time.model)}, {time.method}: {_seconds(time)}{_part(time)}"
        for time in result.sampling
        if time.model in ("emerging", "maf")
    ]
    lines += ["", f"Time for {result.sampling[0].count} samples: {'; '.join(slow)}."]
    if result.sweep:
        rates = sorted({entry.learning_rate for entry in result.sweep})
        watched = result.data["watched"]
        lines += [
            "",
            f"bits/dim of {result.data[watched]} {watched} tiles by learning "
            f"rate, seed {result.sweep[0].seed}, * the best:",
        ]
        lines += ["", f"| | {' | '.join(f'{rate:g}' for rate in rates)} |"]
        lines.append("|---" * (1 + len(rates)) + "|")
        lines += [
            f"| {title(mixing)} | {' | '.join(cells)} |"
            for mixing, cells in _by_rate(result.sweep, rates).items()
        ]
        if watched == "test":
            lines += ["", "There was no validation part: the rates are told by the test tiles."]
    lines += ["", f"Published, **of other images and larger models**: {SOURCE}; ours beside them:"]
    lines += ["", f"| | ours here, {result.data['name']} | {' | '.join(DATA)} | parameters |"]
    lines.append("|---" * 6 + "|")
    lines += [f"| {' | '.join(cells)} |" for cells in _beside_published(result)]
    return [*lines, "", *(f"- {sentence}" for sentence in findings(result.rows, result.sweep))]
