"""Counts, shares and numbers as the page of a conformance run shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping

_STATUS = {
    "pass": ("check holds", "checks hold"),
    "fail": ("fails", "fail"),
    "error": ("ends in an error", "end in an error"),
    "expected": ("fails as expected", "fail as expected"),
    "not applicable": ("does not apply", "do not apply"),
}


def tally(counts: Mapping[str, int]) -> list[str]:
    """Return words for each status that occurs, such as "3 checks hold"."""
    words = [
        f"{counts[s]:,} {text[counts[s] != 1]}" for s, text in _STATUS.items() if counts.get(s)
    ]
    return words or ["0 checks hold"]


def percent(value: float) -> str:
    """Return a share in percent, rounded down from 10 % on."""
    number = 100 * value
    if number == 0:
        return "0"
    if number < 0.01:
        return "<0.01%"
    digits = 2 if number < 1 else 1 if number < 10 else 0
    return f"{number if digits else math.floor(number):.{digits}f}%"


def short(value: float | None) -> str:
    """Return three digits; None, which stands for an infinite number, is "∞"."""
    if value is None:
        return "∞"
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits}e{int(power)}".replace("-", "−")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}" if value else "0"


def shade(value: float | None, lowest: int) -> str:
    """Return the CSS class of a colour, two for each decade from ``lowest`` on, "fail" of None."""
    if value is None:
        return "fail"
    if value <= 0:
        return "s0"
    return f"s{min(8, max(0, math.ceil(2 * (math.log10(value) - lowest) - 1e-9)))}"


def replaced(text: str, start: str, end: str, new: str) -> str:
    """Return a text with another block, with its marks, in place of the one between two marks.

    Raises
    ------
    ValueError
        If the marks are missing.
    """
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise ValueError(f"expected the marks {start} and {end}")
    return before + new + after
