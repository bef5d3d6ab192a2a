"""Which runs a comparison asks for: the sweep goes on until the best rate is inside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from invconv_benchmarks.density.compare.outcome import Outcome
from invconv_benchmarks.density.compare.plan import RATES, Comparison, around
from invconv_benchmarks.density.recipes.preset import load_preset

START = (0.01, 0.03, 0.1)


def comparison(
    *rates: float, seeds: tuple[int, ...] = (0, 1), mixings: str = "plain"
) -> Comparison:
    preset, folder = load_preset("digits"), Path("nowhere")
    return Comparison(preset, {}, seeds, rates, None, folder, 2, False, mixings.split())


def ended(made: Comparison, loss: Callable[[float], float]) -> dict[str, Outcome]:
    """Return the outcomes of all runs, of which each has the bits/dim of its rate; inf diverges."""
    found: dict[str, Outcome] = {}
    while left := made.left(found):
        for job in left:
            bits = loss(job.recipe.training.learning_rate)
            found[job.name] = (
                Outcome("step 3: ...")
                if bits == math.inf
                else Outcome(
                    validation=bits,
                    bits=[bits + 1] if job.final else None,
                    images=object() if job.trips else None,  # type: ignore[arg-type]
                )
            )
    return found


def rates(made: Comparison, loss: Callable[[float], float]) -> tuple[list[float], float]:
    """Return the rates that were tried, in order, and the chosen one."""
    outcomes = ended(made, loss)
    tried = [job.recipe.training.learning_rate for job in made.sweep(outcomes)]
    (chosen,) = {job.recipe.training.learning_rate for job in made.final(outcomes)}
    return tried, chosen


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.03, [0.01, 0.03, 0.1]),
        (0.1, [0.01, 0.03, 0.1, 0.3]),
        (0.01, [0.003, 0.01, 0.03, 0.1]),
        (0.001, [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]),
    ],
)
def test_a_sweep_goes_on_until_the_best_is_inside(best: float, tried: list[float]) -> None:
    assert rates(comparison(*START), lambda rate: abs(math.log(rate / best))) == (tried, best)


def test_a_run_that_stops_is_worse_than_any_other_and_an_end_of_the_sweep() -> None:
    def loss(rate: float) -> float:
        return math.inf if rate > 0.05 else -rate

    assert rates(comparison(*START), loss) == ([0.01, 0.03, 0.1], 0.03)
    below = rates(comparison(*START), lambda rate: math.inf if rate > 0.002 else -rate)
    assert below == ([0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], 0.001)
    tried, chosen = rates(comparison(*START), lambda rate: math.inf)
    assert tried == [rate for rate in RATES if rate <= 0.1]
    assert chosen == RATES[0]


def test_rates_without_an_end_stop_at_the_last_that_a_recipe_takes() -> None:
    assert rates(comparison(*START), lambda rate: -rate) == ([0.01, 0.03, 0.1, 0.3], 0.3)
    tried, chosen = rates(comparison(*START), lambda rate: rate)
    assert (tried[0], chosen) == (1e-5, 1e-5)


def test_each_row_has_its_own_rate_and_the_test_part_sees_no_other() -> None:
    made = comparison(*START, mixings="plain emerging")
    found = ended(made, lambda rate: abs(math.log(rate / 0.1)))
    reported = [name for name, outcome in found.items() if outcome.bits]
    assert sorted(reported) == sorted(job.name for job in made.final(found))
    assert sorted(reported) == [
        f"{m}-seed{s}-rate0.1" for m in ("emerging", "plain") for s in (0, 1)
    ]
    first = {job.name: job for job in made.left({})}
    assert not any(job.final or job.trips for job in first.values())
    assert {job.recipe.seed for job in first.values()} == {0}
    assert [job.trips for job in made.final(found)] == [True, True, False, False]


def test_one_rate_is_taken_as_it_is() -> None:
    made = comparison(0.02)
    assert [job.name for job in made.left({})] == ["plain-seed0-rate0.02", "plain-seed1-rate0.02"]
    assert all(job.final for job in made.left({}))
    assert made.sweep(ended(made, lambda rate: rate)) == []


def test_a_rate_has_two_neighbours() -> None:
    assert around(0.03) == START
    assert around(0.02) == (0.01, 0.02, 0.1)
    assert around(0.3) == (0.1, 0.3)
