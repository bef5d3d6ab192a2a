"""A run as one HTML file that needs nothing else: ``page.html`` with the run's results in it."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

_COLUMN = ("library", "device", "mode", "dtype")
_KEPT = ("case", "status", "what", "error", "bound", "reproduce", "reason")
_SEVERITY = ("fail", "error", "expected")


def as_page(document: dict[str, Any]) -> str:
    """Return the page that shows a document of schema ``invconv-conformance/1``."""
    text = json.dumps(thin(document), allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # in strings only, none of which can then end the script element
        text = text.replace(character, f"\\u{ord(character):04x}")
    template = files("invconv_conformance").joinpath("page.html").read_text("utf-8")
    return template.replace("{{document}}", text, 1)


def thin(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with cells for results: a law in a column, and what there is to see.

    A cell counts its results by status, and keeps the worst that passes and all that do not.
    """
    places = {tuple(c[k] for k in _COLUMN): i for i, c in enumerate(document["columns"])}
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for result in document["results"]:
        key = (result["law"], places[tuple(result[k] for k in _COLUMN)])
        new = {"law": key[0], "column": key[1], "counts": {}, "worst": None, "bad": []}
        cell, status = cells.setdefault(key, new), result["status"]
        cell["counts"][status] = cell["counts"].get(status, 0) + 1
        kept = {k: result[k] for k in _KEPT if k in result} | {"share": share(result)}
        if status in _SEVERITY:
            cell["bad"].append(kept)
        elif status == "pass" and (cell["worst"] is None or kept["share"] > cell["worst"]["share"]):
            cell["worst"] = kept
    for cell in cells.values():
        cell["bad"].sort(key=_severity)
    return {k: v for k, v in document.items() if k != "results"} | {"cells": list(cells.values())}


def share(result: dict[str, Any]) -> float | None:
    """Return how much of its bound a result uses up, None for an infinite share."""
    error, bound = result["error"], result["bound"]
    if error == 0:
        return 0.0
    value = error / bound if error is not None and bound else math.inf
    return value if math.isfinite(value) else None


def _severity(kept: dict[str, Any]) -> tuple[int, float]:
    return _SEVERITY.index(kept["status"]), -math.inf if kept["share"] is None else -kept["share"]
