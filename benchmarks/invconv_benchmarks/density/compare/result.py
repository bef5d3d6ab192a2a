"""The result of a comparison, and its file: strict JSON of a fixed schema, with a checksum."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from invconv_benchmarks.density.evaluation.round_trip import Trip
from invconv_benchmarks.density.evaluation.sampling import SamplingTime
from invconv_benchmarks.results import sealed

SCHEMA = "invconv-density/2"


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of some values; None of one value."""

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class Difference(Spread):
    """The difference of bits/dim from the baseline, seed by seed.

    Attributes
    ----------
    each : list of float
        By seed.
    lower : int
        The number of seeds with less than the baseline.
    tiles_error : float or None
        The standard error of the mean over the test tiles: how much other tiles of the same kind
        would change it.
    """

    each: list[float]
    lower: int
    tiles_error: float | None


@dataclass(frozen=True)
class Run:
    """A seed of a row: its bits/dim, and what was measured on the way; or what stopped it."""

    seed: int
    error: str | None
    bits: float | None
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A mixing layer, over all seeds.

    Attributes
    ----------
    mixing : str
    learning_rate : float
        The chosen one, or the only one.
    parameters : int or None
        The number of them.
    seconds_per_step : float or None
    bits : Spread or None
    difference : Difference or None
    images, samples : Trip or None
        What came back of the first seed's model.
    runs : list of Run
    """

    mixing: str
    learning_rate: float
    parameters: int | None
    seconds_per_step: float | None
    bits: Spread | None
    difference: Difference | None
    images: Trip | None
    samples: Trip | None
    runs: list[Run]


@dataclass(frozen=True)
class Rate:
    """A run of a mixing layer at a learning rate: bits/dim of the validation part."""

    mixing: str
    learning_rate: float
    seed: int
    validation: float | None
    error: str | None


@dataclass(frozen=True)
class Result:
    """What a comparison found; ``comparison.schema.json`` says what the rest is."""

    invconv: str
    date: str
    command: str
    environment: dict[str, Any]
    workers: int
    threads: int
    quick: bool
    preset: str
    about: str
    data: dict[str, Any]
    architecture: dict[str, Any]
    training: dict[str, Any]
    seeds: list[int]
    paper: dict[str, str]
    seconds: float
    load: dict[str, float | None]
    rows: list[Row]
    sampling: list[SamplingTime]
    sweep: list[Rate]


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    sealed.write(path, {"schema": SCHEMA} | asdict(result))


def read(path: Path) -> Result:
    """Return a comparison's result.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    return sealed.load(path, Result, sealed.schema(__package__, "comparison.schema.json"))
