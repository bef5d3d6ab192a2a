"""The result of a benchmark: rows with their ratios to others, limits with verdicts, and the file.

A row is the measurements of a contender. Files are strict JSON with a named schema and a checksum
over all of it: one that was cut off, edited or made by another version is refused.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text
from invconv_benchmarks import suites
from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.timing import Contender, Interval
from invconv_benchmarks.suites import Group, as_text
from invconv_conformance.libraries import LIBRARIES

Document = dict[str, Any]
Key = tuple[Any, ...]

TITLES = {library.name: library.title for library in LIBRARIES}
SCHEMA = "invconv-benchmark/2"

_TIMES = {"numpy": 1.0, "torch": 1.1, "jax": 1.4}  # a library's limits are NumPy's times this
_JAX_CALL = 6.0  # the limit at the first shape, where the overhead of JAX's call dominates
_LONG, _GAIN, _EQUAL = 1e-3, 1.6, 0.95  # seconds of one thread, from which a second has to gain
_CHECKS = {"check": (3, 0.05), "diagnosis": (6, 0.2)}  # solves, and seconds
_GROWTH = {"batch": 1.1, "pixels": 1.1, "channels": 2.1, "taps": 1.1}


@dataclass
class Row:
    """A contender of a group: what of the `Group` and the `Contender` names it, and its times."""

    suite: str
    map: str
    shape: tuple[int, ...]
    axis: str
    dtype: str
    limit: float | None
    threads: int
    contender: str
    role: str
    does: str
    library: str
    device: str
    mode: str
    plan: float | None = None  # seconds of the first pass, to plan
    first: float | None = None  # and for the first call
    calls: int = 1  # that a sample is the mean of
    error: str = ""
    passes: list[list[float]] = field(default_factory=list)  # of seconds; a failed one is empty
    residual: float | None = None  # ||K x - y|| / (||x|| + ||y||) of an inverse
    p10: float | None = None  # quantiles of all samples
    median: float | None = None
    p90: float | None = None
    against: str | None = None  # the fastest plain contender of the same library
    ratio: Interval | None = None  # of the medians, to that one
    between: float = 0.0  # standard deviation of the ratio's logarithm from pass to pass
    yardstick: Interval | None = None  # ratio of the medians to the group's yardstick

    @property
    def turns(self) -> Key:
        """The attributes that rows measured in turns have in common."""
        return self.suite, self.map, self.shape, self.axis, self.dtype, self.threads

    @property
    def place(self) -> tuple[str, str, str]:
        """Library, device and mode."""
        return self.library, self.device, self.mode

    @property
    def words(self) -> tuple[str, str, str]:
        """The shape, the dtype and the number of threads, for a table."""
        threads = 2 if (self.suite, self.role) == ("threads", "ours") else self.threads
        return as_text(self.shape), self.dtype.replace("float", "f"), str(threads)

    @property
    def seconds(self) -> float:
        """The median of a row that was measured."""
        assert self.median is not None
        return self.median

    def ratio_to(self, other: Self) -> Interval:
        """Return the ratio of medians to another row of the group."""
        return timing.ratio(self.passes, other.passes, self.between)


def row_of(group: Group, contender: Contender | None, threads: int, **measured: Any) -> Row:
    """Return the measured row of a contender, or without one that of a whole group."""
    labels = ("all", "ours", "all", "", "", "")
    if contender is not None:
        there = contender.target.library.name, contender.target.device, contender.target.mode
        labels = (contender.name, contender.role, contender.does, *there)
    place = group.suite, group.map, group.shape, group.axis, group.dtype, group.limit
    return Row(*place, threads, *labels, **measured)


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows that were measured in turns, group by group."""
    by_turns: dict[Key, list[Row]] = {}
    for row in rows:
        by_turns.setdefault(row.turns, []).append(row)
    return list(by_turns.values())


def merged(rows: Iterable[Row]) -> list[Row]:
    """Return one row a contender: the samples of all passes, and the ratios to others."""
    by_key: dict[Key, Row] = {}
    for row in rows:
        key = *row.turns, row.contender, row.does, *row.place
        known = by_key.setdefault(key, row)
        if known is not row:
            known.passes += row.passes
            known.error = known.error or row.error
    for row in by_key.values():
        row.passes = row.passes if any(row.passes) else []
        if row.passes:
            every = np.concatenate(row.passes)
            row.p10, row.median, row.p90 = np.quantile(every, [0.1, 0.5, 0.9]).tolist()
    together = grouped(by_key.values())
    for row, other, between in _pairs(together, _baseline):
        row.against, row.between = other.contender, between
        row.ratio = row.ratio_to(other)
    for row, other, between in _pairs(together, _yardstick):
        row.yardstick = timing.ratio(row.passes, other.passes, between)
    return list(by_key.values())


def _pairs(
    together: Sequence[list[Row]], to: Callable[[Row, list[Row]], Row | None]
) -> Iterable[tuple[Row, Row, float]]:
    """Return measured rows, what each is compared with, and how much ratios of its kind vary."""
    alike: dict[Key, list[tuple[Row, Row]]] = {}
    for group in together:
        for row in group:
            if row.passes and (other := to(row, group)):
                alike.setdefault((*row.place, row.threads, row.dtype), []).append((row, other))
    for pairs in alike.values():
        between = timing.between_passes((a.passes, b.passes) for a, b in pairs if a is not b)
        yield from ((row, other, between) for row, other in pairs)


def _baseline(row: Row, group: list[Row]) -> Row | None:
    plain = [r for r in group if r.role == "plain" and r.passes and r.place == row.place]
    return min(plain, key=lambda r: r.seconds, default=None)


def _yardstick(row: Row, group: list[Row]) -> Row | None:
    """Return the contender by which all libraries are measured, on the row's device."""
    known = (r for r in group if r.contender in suites.YARDSTICKS and r.device == row.device)
    there = [r for r in known if r.passes and (r.mode == "graph") == (row.mode == "graph")]
    return min(there, key=lambda r: suites.YARDSTICKS.index(r.contender), default=None)


@dataclass(frozen=True)
class Verdict:
    """A limit, and how a measurement compares with it."""

    limit: str
    what: str  # it was measured on
    value: float
    low: float  # to high: the spread that the run states
    high: float
    bound: float
    verdict: str  # "pass" where the whole spread keeps it, "miss" where none does, or "unclear"


def judged(
    limit: str, what: str, measured: Interval | float, bound: float, *, least: bool = False
) -> Verdict:
    """Judge a measurement by a bound not to be exceeded, or with ``least`` to be reached."""
    one = measured if isinstance(measured, Interval) else Interval(*[measured] * 3)
    low, high, most = (-one.high, -one.low, -bound) if least else (one.low, one.high, bound)
    verdict = "pass" if high <= most else "miss" if low > most else "unclear"
    return Verdict(limit, what, one.value, one.low, one.high, bound, verdict)


def verdicts_of(rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdict of every limit on all that was measured."""
    judgements = [v for group in grouped(rows) for v in _SUITES.get(group[0].suite, _stated)(group)]
    return [*judgements, *_growth(rows)]


def _what(row: Row) -> str:
    device = "" if row.device == "cpu" else f", {row.device} {row.mode}"
    return f"{row.library} {row.map} {' '.join(row.words)} thr{device}"


def _ours(group: list[Row], does: str) -> list[Row]:
    return [r for r in group if r.role == "ours" and r.does == does and r.passes]


def _inverse(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        kind, _, size = row.map.partition(" ")
        what, bound = _what(row), _against_conv2d(row)
        if bound and row.yardstick:
            name = f"{TITLES[row.library]}, one thread: inverse / {suites.CONV2D}"
            yield judged(name, what, row.yardstick, bound)
        for other in (r for r in group if r.passes and r.place == row.place):
            if kind == "emerging" and row.library == "numpy" and other in _ours(group, "forward"):
                name = "emerging pair, batched: inverse / forward, NumPy"
                yield judged(name, what, row.ratio_to(other), 1.5)
            if kind == "periodic" and other.contender == suites.FFT:
                name = "periodic inverse, prepared / FFT forward, prepared"
                yield judged(name, what, row.ratio_to(other), 1.1)
        if row.residual is not None and kind in ("corner", "emerging"):
            k = (int(size) + 1) // 2 if kind == "emerging" else int(size)
            unit = row.shape[1] * k**2 * float(np.finfo(row.dtype).eps)
            yield judged("backward error / (C k k eps)", what, row.residual / unit, 1.0)


def _against_conv2d(row: Row) -> float | None:
    """Return the limit of a corner's inverse ÷ F.conv2d, None where there is none."""
    both = suites.AGAINST_CONV2D.get(row.shape)
    alone = row.map == "corner 2" and row.threads == 1 and row.device == "cpu"
    if both is None or not alone or row.library not in _TIMES:
        return None
    if row.library == "jax" and row.shape == suites.LIMIT_SHAPES[0]:
        return _JAX_CALL
    return _TIMES[row.library] * both[row.dtype == "float64"]


def _odd(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        if row.limit is not None and row.yardstick and row.library in _TIMES:
            name = f"odd shapes, {TITLES[row.library]}: inverse / yardstick"
            yield judged(name, _what(row), row.yardstick, _TIMES[row.library] * row.limit)


def _stated(group: list[Row]) -> Iterator[Verdict]:
    for row in group:
        if row.role == "ours" and row.limit is not None and row.ratio is not None:
            yield judged(f"{row.suite}: time / {row.against}", _what(row), row.ratio, row.limit)


def _threads(group: list[Row]) -> Iterator[Verdict]:
    for row in group:
        if row.role == "ours" and row.ratio is not None:
            (one,) = (r for r in group if r.role == "plain" and r.place == row.place)
            gain, long = row.ratio.inverse(), one.seconds > _LONG
            name = f"two threads: gain{' of solves over 1 ms' * long}, at least"
            yield judged(name, _what(row), gain, _GAIN if long else _EQUAL, least=True)


def _checks(group: list[Row]) -> Iterator[Verdict]:
    rows = {row.does: row for row in group if row.passes}
    least = {does: min(itertools.chain(*row.passes)) for does, row in rows.items()}
    for does, (solves, rest) in _CHECKS.items():
        if does in least and "solve" in least:
            name = f"least time of a {does} / ({solves} solves and {1e3 * rest:g} ms)"
            what = f"{_what(rows[does])}: {1e3 * least['solve']:.3g} ms a solve"
            yield judged(name, what, least[does] / (solves * least["solve"] + rest), 1.0)


_SUITES = {"inverse": _inverse, "odd": _odd, "threads": _threads, "checks": _checks}


def _growth(rows: Sequence[Row]) -> Iterator[Verdict]:
    series: dict[Key, list[Row]] = {}
    for row in rows:
        if row.axis and row.role == "ours" and row.passes:
            key = row.axis, len(row.shape), row.does, *row.place, row.dtype, row.threads
            series.setdefault(key, []).append(row)
    for (axis, ndim, does, *_), points in series.items():
        points.sort(key=_size)
        if len(points) < timing.LEAST_SIZES:
            continue
        exponent = timing.exponent([_size(p) for p in points], [p.seconds for p in points])
        first, last = points[0], points[-1]
        what = f"{first.library} {does} {ndim - 2}-D {' '.join(first.words[1:])} thr"
        what += f", {first.map} {as_text(first.shape)} to {last.map} {as_text(last.shape)}"
        yield judged(f"exponent of cost in {axis}", what, exponent, _GROWTH[axis])


def _size(row: Row) -> float:
    grid = row.shape[2:]
    taps = int(row.map.partition(" ")[2] or 1) ** len(grid)
    sizes = {"pixels": math.prod(grid), "batch": row.shape[0], "channels": row.shape[1]}
    return float((sizes | {"taps": taps})[row.axis])


@dataclass(frozen=True)
class Result:
    """The result of a run: with which command and machine, and what was found."""

    invconv: str
    date: str
    command: str
    seconds: float
    complete: bool  # else it was interrupted, and some rows are missing
    quick: bool
    passes: int
    environment: dict[str, Any]
    load: dict[str, float | None]  # the processes that wanted to run at the start and at the end
    not_run: list[str]  # what is absent, and why
    rows: list[Row]
    limits: list[Verdict]


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    write_document(path, {"schema": SCHEMA} | asdict(result))


def read(path: Path) -> Result:
    """Return a file's result; a file that is none, was changed or is cut off is refused."""
    schema = files(__package__).joinpath("benchmark.schema.json").read_text("utf-8")
    document = read_document(path, SCHEMA, json.loads(schema))
    rows = [Row(**row | {"shape": tuple(row["shape"])}) for row in document["rows"]]
    for row in rows:
        for name in ("ratio", "yardstick"):
            if (interval := getattr(row, name)) is not None:
                setattr(row, name, Interval(**interval))
    fields = {n: v for n, v in document.items() if n not in ("schema", "checksum")}
    limits = [Verdict(**limit) for limit in document["limits"]]
    return Result(**fields | {"rows": rows, "limits": limits})


def checksum(document: Document) -> str:
    """Return the SHA-256 of the document without its checksum, as canonical JSON."""
    rest = {k: v for k, v in document.items() if k != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_document(path: Path, document: Document) -> None:
    """Write a document with its checksum, at once or not at all."""
    document = json.loads(json.dumps(document, allow_nan=False))
    document["checksum"] = checksum(document)
    text = json.dumps(document, indent=1, allow_nan=False)
    # the samples of a pass stand in one line
    text = re.sub(r"\[[-+.\de,\s]+\]", lambda m: " ".join(m[0].split()), text)
    write_text(path, text + "\n")


def read_document(path: Path, name: str, schema: Document | None = None) -> Document:
    """Return what `write_document` wrote, checked against its checksum and schema."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        document = document if isinstance(document, dict) else {}
        intact = document.get("checksum") == checksum(document)  # which refuses NaN
    except FileNotFoundError:
        raise CommandError(f"{path}: there is no such file") from None
    except ValueError:
        raise CommandError(f"{path}: expected JSON; the file is cut off or damaged") from None
    if (named := document.get("schema")) != name:
        raise CommandError(f"{path}: expected a result of schema {name}, got {named!r}")
    if not intact:
        changed = "the checksum does not match, so the file was changed after it was written"
        raise CommandError(f"{path}: {changed}; measure again, or restore it")
    import jsonschema  # the demo, which reads no result, does without

    try:
        jsonschema.validate(document, schema or {})
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise CommandError(f"{path}: not of schema {name} at {place}: {error.message}") from None
    return dict(document)
