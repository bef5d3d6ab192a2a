"""Look for an inverse that is wrong and says nothing.

``python -m invconv_benchmarks.studies.silent_error`` judges operators as `prepare` and `diagnose`
do, and compares with dense matrices in extended precision: the constructions that were silent once,
random operators of thirteen families, chains of 2 to 8 steps, large grids in float64. It climbs for
errors that nothing warns of, and compares where the climbs end as it does all others. It exits with
1 where an inverse with fewer than 1.5 digits is silent, one in a hundred warns though three digits
are left, or a digit too many is said. ``--quick`` takes a tenth of each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from invconv_benchmarks.report.tables import new
from invconv_benchmarks.studies.silent_error import climbing, comparison, drawing
from invconv_benchmarks.studies.silent_error.comparison import Compared
from invconv_benchmarks.studies.silent_error.constructions import constructions
from invconv_conformance import printing

_FAMILY, _CHAINS, _LARGE, _EVALUATIONS = 200, 200, 10, 5000
_QUICK = 10  # of each, one in so many
_MOST_FALSE = 0.01


def constructed_table(found: Sequence[Compared]) -> Table:
    """Return a line for each construction."""
    columns = ("condition", "said", "left", "warns")
    shown = new("silent once: digits in float32", ("construction",), columns)
    for one in found:
        condition = f"{one.conv.condition(one.shape):.3g}"
        said = f"{one.said:.2f}", f"{one.left:.2f}", "yes" if one.inverse_warns else "no"
        shown.add_row(one.name, condition, *said)
    return shown


def climbs_table(climbs: Sequence[climbing.Climb], ends: Sequence[Compared]) -> Table:
    """Return a line for each climb."""
    columns = ("evaluations", "warned", "largest silent error", "said", "left")
    shown = new("climbs for a silent error in float32", ("from",), columns)
    for one, end in zip(climbs, ends, strict=True):
        digits = f"{end.said:.2f}", f"{end.left:.2f}"
        shown.add_row(end.name, str(one.evaluations), str(one.warned), f"{one.silent:.1e}", *digits)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return 1 where something is silent, or false."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    share, seed, console = _QUICK if arguments.quick else 1, arguments.seed, printing.console()
    constructed = comparison.compare_all(constructions(), "constructions", ask=True)
    console.print(constructed_table(constructed))
    drawn = comparison.compare_all(
        drawing.random_operators(_FAMILY // share, seed), "random operators"
    )
    others = comparison.compare_all(
        [*drawing.chains(_CHAINS // share, seed), *drawing.large_grids(_LARGE // share, seed)],
        "chains and large grids",
    )
    console.print(comparison.table([*drawn, *others]))
    climbs = [climbing.climb(*start, _EVALUATIONS // share, seed=seed) for start in climbing.STARTS]
    ends = comparison.compare_all([one.end for one in climbs], "where they end")
    console.print(climbs_table(climbs, ends))
    return verdict([*constructed, *drawn, *others, *ends], drawn, console)


def verdict(found: Sequence[Compared], drawn: Sequence[Compared], console: Console) -> int:
    """Print what does not hold, and return 1 where that is something."""
    silent = [one for one in found if one.silent]
    false = [one for one in drawn if one.false_alarm]
    hopeful = [one for one in found if one.hopeful > comparison.FAR]
    close = sum(abs(one.hopeful) <= comparison.CLOSE for one in found) / len(found)
    console.print(
        f"{len(found)} operators: {len(silent)} silent, {100 * close:.2f} % said within half a "
        f"digit, {len(hopeful)} more than a digit too hopeful; {len(false)} of {len(drawn)} random "
        "ones warn though three digits are left",
        highlight=False,
    )
    for one in (*silent, *hopeful):
        console.print(f"off: {one}", highlight=False)
    return int(bool(silent or hopeful or len(false) > _MOST_FALSE * len(drawn)))


if __name__ == "__main__":
    sys.exit(main())
