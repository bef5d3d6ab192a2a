"""``invconv benchmark``: libraries, devices and layers side by side, and how limits are kept."""

import argparse
import base64
import importlib
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema  # noqa: F401  # of results: where it is missing, that is said before the work
import matplotlib.pyplot as plt
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Column

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text
from invconv_benchmarks import suites
from invconv_benchmarks.measure import environment
from invconv_benchmarks.options import numbers
from invconv_benchmarks.report import tables
from invconv_benchmarks.report.figures import save
from invconv_benchmarks.results import result
from invconv_benchmarks.results.result import Result, Row
from invconv_benchmarks.runs import Schedule, Step, perform
from invconv_conformance import printing
from invconv_conformance.arguments import positive, require_writable, words
from invconv_conformance.libraries import KNOWN, NEEDS_CUDA, chosen, share_the_card
from invconv_conformance.pages import Line, Styled, render

_STRICT = ("checks", "silent_error")  # where a limit is missed or a row fails, so does the command
# modules whose ``measure(quick, folder)`` returns verdicts, and pictures by caption
STUDIES = (
    *("overhead", "choices", "filters", "first_solve", "precision", "sampling", "silent_error"),
    "survey",
)
_CHOOSING = ("library", "device", "dtype", "threads", "shapes", "only", "seconds")  # of groups
_DRAWING = {"survey": ("seed", "count", "only"), "silent_error": ("seed",)}  # what is measured
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    choices = (*dict.fromkeys((*suites.SUITES, *STUDIES)), "all")
    first, alone = len(suites.LIBRARY_SUITES), ", ".join(suites.ONE_THREAD)
    about = f"one of {', '.join(choices)}; all (the default) are the first {first}"
    parser.add_argument("suite", nargs="?", default="all", choices=choices, help=about)
    lists = {
        "--library": f"a comma-separated list of {', '.join(KNOWN)}; default: all",
        "--device": "only these devices, such as cpu,cuda:0; cuda means all",
        "--dtype": "such as float32,float64 (the default)",
        "--threads": f"such as 1,2; default: 1 and all cores; --quick, {alone}: 1",
        "--shapes": "B x C x H x W, such as 64x12x16x16,1x3x512x512, instead of the suite's",
    }
    for option, about in lists.items():
        parser.add_argument(option, type=words, help=about)
    parser.add_argument(
        "--only", default="*", help="a pattern of the maps, such as 'Glow*'; of survey a number"
    )
    parser.add_argument(
        "--seed", type=int, help="of what survey or silent_error draws (default: 0)"
    )
    parser.add_argument("--count", type=int, help="of these calls (default: 200, or 20)")
    parser.add_argument("--quick", action="store_true", help="under 3 minutes, not 30")
    parser.add_argument("--seconds", type=positive, help="for each call in each pass")
    about = "the folder for result.json, index.html and pictures (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-benchmark"), help=about)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables and write the files."""
    console = printing.console()
    share_the_card()
    schedule = make_schedule(arguments)
    drawing = {o: getattr(arguments, o) for o in _DRAWING.get(arguments.suite, ())}
    given = {o: numbers(f"--{o}", [v], int)[0] for o, v in drawing.items() if v not in (None, "*")}
    if min(given.values(), default=0) < 0:
        raise CommandError(f"--{', --'.join(given)}: expected numbers of at least 0, got {given}")
    folder = arguments.out
    if not folder.absolute().parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise CommandError(f"--out: expected a folder, or a name for one, got {folder}")
    folder.mkdir(exist_ok=True)
    require_writable(folder)
    finished = environment.begin()
    verdicts, pictures = [], {}
    if arguments.suite in STUDIES and (arguments.only == "*" or not schedule.groups):
        study = importlib.import_module(f"invconv_benchmarks.studies.{arguments.suite}")
        verdicts, pictures = study.measure(arguments.quick, folder, **given)
    words = bars.TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
    shown = bars.BarColumn(16), bars.MofNCompleteColumn(), bars.TimeRemainingColumn(compact=True)
    with bars.Progress(*shown, words, console=console, transient=True, expand=True) as progress:
        measured = perform(schedule, _shown(progress), finished, verdicts)
    report(measured, pictures, folder, console)
    found = any(row.passes for row in measured.rows)
    if schedule.groups and measured.complete and not found:
        expected = "expected a library and a device that run this suite"
        got = ",".join(" ".join(target) for target in schedule.targets)
        raise CommandError(f"nothing was measured: {expected} without an error, got {got}")
    bad = any(v.verdict == "miss" for v in measured.limits) or any(_failed(measured))
    return int(arguments.suite in _STRICT and bad) if measured.complete else 130


def _failed(measured: Result) -> list[Row]:
    return [row for row in measured.rows if row.error and row.role == "ours"]


def _shown(progress: bars.Progress) -> Step:
    """Return a function that shows progress: a bar, or without a terminal a line a pass."""
    bar, shown = progress.add_task("", total=None), ""

    def step(text: str, done: int, total: int) -> None:
        nonlocal shown
        progress.update(bar, description=text, completed=done, total=total)
        part = text.partition(":")[0]
        if part != shown and not progress.console.is_terminal:
            progress.console.print(f"{done} of {total} groups done; {part}")
        shown = part

    return step


def report(measured: Result, pictures: dict[str, Path], folder: Path, console: Console) -> None:
    """Write the files of a result and print its tables."""
    result.write(folder / "result.json", measured)
    measured = result.read(folder / "result.json")
    pictures = pictures | draw(measured, folder)
    write_text(folder / "index.html", as_page(measured, pictures))
    for section in (*tables.times(measured.rows), *tables.limits(measured.limits)):
        console.print(section.table())
        console.print()
    console.print(_NOTES, highlight=False, soft_wrap=True)
    for reason in measured.not_run:
        console.print(f"not run: {escape(reason)}")
    for row in _failed(measured):
        text = f"{row.contender} {row.library} {row.map}: {row.error}"
        console.print(f"[red]failed[/]: {escape(text)}")
    if not measured.complete:
        console.print("[yellow]stopped early[/]: this is what was measured until then")
    verdicts = [v.verdict for v in measured.limits]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "unclear", "miss"))
    files = f"{folder}/index.html, result.json and {len(pictures)} pictures"
    passes = f"{measured.passes} pass{'es' * (measured.passes != 1)}"
    text = f"limits: {counts}. {files}: {passes}, {measured.seconds:.0f} s"
    console.print(text, markup=False, highlight=False)


def as_page(result: Result, pictures: Mapping[str, Path]) -> str:
    """Return the page, with PNG files by their captions."""
    return render(
        tables.__package__,
        "page.html",
        result=result,
        busy=environment.busy(result.load, result.environment["cores"]),
        count=[limit.verdict for limit in result.limits].count,
        pictures=[(n, base64.b64encode(p.read_bytes()).decode()) for n, p in pictures.items()],
        limits=[(s, _lines(s)) for s in tables.limits(result.limits)],
        times=[(s, _lines(s)) for s in tables.times(result.rows)],
    )


def _lines(section: tables.Section) -> list[Line]:
    return [Line((*cells, Styled(last, last))) for *cells, last in section.lines]


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """Write inverses of one thread beside F.conv2d, if there are any; return it by its caption."""
    rows = [r for r in result.rows if (r.suite, r.role, r.does) == ("inverse", "ours", "inverse")]
    rows = [r for r in rows if r.yardstick]
    rows = [r for r in rows if (r.dtype, r.threads) == (rows[0].dtype, rows[0].threads)]
    if not rows:
        return {}
    labels = list(dict.fromkeys(f"{r.map}\n{suites.as_text(r.shape)}" for r in rows))
    places = list(dict.fromkeys(tables.place(r) for r in rows))
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.55 * len(labels)), layout="constrained")
    for number, name in enumerate(places):
        mine = [r for r in rows if tables.place(r) == name]
        lines = [labels.index(f"{r.map}\n{suites.as_text(r.shape)}") for r in mine]
        intervals = [r.yardstick for r in mine if r.yardstick]
        values = [i.value for i in intervals]
        sides = [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]
        shifted = [line + 0.6 * ((number + 0.5) / len(places) - 0.5) for line in lines]
        axis.errorbar(values, shifted, xerr=sides, fmt="o", ms=4, capsize=2, label=name)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set_xticks(_TICKS, [f"{t:g}" for t in _TICKS])
    axis.minorticks_off()
    axis.autoscale(axis="x")
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlabel(f"time of the inverse ÷ {suites.CONV2D}")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(places), frameon=False)
    save(figure, folder / "ratios.png")
    first = rows[0]
    caption = f"Inverse ÷ PyTorch's {suites.CONV2D} with the stated spread, {first.dtype}, "
    return {f"{caption}{first.threads} thread{'s' * (first.threads > 1)}": folder / "ratios.png"}


def make_schedule(arguments: argparse.Namespace) -> Schedule:
    """Return the schedule that the options ask for; raise CommandError if they cannot be met."""
    targets, not_run = _targets(arguments)
    quick, suite, only = arguments.quick, arguments.suite, arguments.only
    known = ("float32", "float64") if suite != "overhead" else ("float32",)  # as its layers have
    dtypes = arguments.dtype or known
    for dtype in dtypes:
        if dtype not in known:
            expected = f"expected some of {', '.join(known)} for the suite {suite}"
            raise CommandError(f"--dtype: {expected}, got {dtype!r}")
    shapes = arguments.shapes or ()
    for text in shapes:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
            expected = "expected B x C x H x W such as 64x12x16x16"
            raise CommandError(f"--shapes: {expected}, got {text!r}")
    numbered = [tuple(map(int, text.split("x"))) for text in shapes]
    chosen = tuple(suites.select(suite, numbered, dtypes, quick, only))
    if not chosen and suite in (*suites.SUITES, "all"):
        raise CommandError(f"the suite {suite} has nothing to run with these options")
    taken = _DRAWING.get(suite, _CHOOSING if chosen else ())
    every = dict.fromkeys((*_CHOOSING, *_DRAWING["survey"]))
    given = [o for o in every if o not in taken and getattr(arguments, o) not in (None, "*")]
    if given:
        alone = (
            f"the suite {suite} takes {''.join(f'--{o}, ' for o in taken)}--quick and --out alone"
        )
        raise CommandError(f"{alone}, got --{', --'.join(given)}")
    return Schedule(
        command=f"python -m invconv {shlex.join(sys.argv[1:])}",
        groups=chosen,
        targets=targets,
        threads=_threads(arguments),
        not_run=not_run,
        quick=quick,
        passes=1 if suite == "checks" else 2 if quick else 3,
        seconds=arguments.seconds or (0.08 if quick else 0.2),
        deadline=150 if quick else 1500,
    )


def _targets(arguments: argparse.Namespace) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    wanted = arguments.device or ()
    every = tuple(n for n in KNOWN if n != "array_api_strict")  # made to find mistakes
    here, absent = chosen(arguments.library, suites.ONE_THREAD.get(arguments.suite, every))
    targets = [(library.name, d) for library in here for d in library.devices()]
    found = [(n, d) for n, d in targets if not wanted or {d, d.partition(":")[0]} & {*wanted}]
    if not found and {d.partition(":")[0] for d in wanted} == {"cuda"}:
        raise CommandError(f"--device: {','.join(wanted)} {NEEDS_CUDA}: none here")
    if not found:
        raise CommandError(f"--device: nothing that is installed here has {','.join(wanted)!r}")
    return tuple(found), tuple(absent) if arguments.suite in (*suites.LIBRARY_SUITES, "all") else ()


def _threads(arguments: argparse.Namespace) -> tuple[int, ...]:
    cores = environment.cores()
    if arguments.threads is None:
        alone = arguments.quick or arguments.suite in suites.ONE_THREAD
        return (1,) if alone else tuple(sorted({1, cores}))
    counts = sorted(numbers("--threads", arguments.threads, int))
    if counts[0] < 1 or counts[-1] > cores:
        expected = f"expected numbers from 1 to {cores}, such as 1,2"
        raise CommandError(f"--threads: {expected}, got {','.join(arguments.threads)!r}")
    return tuple(counts)


_NOTES = """\
÷ plain: the ratio to the library's fastest plain convolution, or to what a suite names; ÷ F.conv2d:
to PyTorch's, on images padded beforehand, in the same run; ÷ yardstick (odd): to SciPy's filter or
FFTs, else PyTorch's convolution; with the spread that two runs should agree within. x ours: how
much longer the peer takes than invconv in that library. Limits: "pass" where the whole spread keeps
it, "miss" where none of it does, else "unclear"."""
