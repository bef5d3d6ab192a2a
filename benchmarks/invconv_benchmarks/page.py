"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from invconv_benchmarks import fits, tables
from invconv_benchmarks.collect import Row, grouped
from invconv_benchmarks.plain import CONV2D
from invconv_benchmarks.result import Document
from invconv_benchmarks.spread import Interval
from invconv_benchmarks.suites import as_text


def as_page(document: Document, pictures: dict[str, Path]) -> str:
    """Return the page.

    Parameters
    ----------
    document : dict
        Of schema ``invconv-benchmark/1``.
    pictures : dict of str to Path
        PNG files by their captions.
    """
    environment = document["environment"]
    gpus = ", ".join(environment["gpus"]) or "GPU: not yet run"
    parts = {
        "meta": escape(
            f"invconv {document['invconv']}, {document['date']}, commit {environment['commit']}. "
            f"{environment['cpu']}, {environment['cores']} cores. {gpus}."
        ),
        "lead": _lead(document),
        "limits": _limits(document["limits"]),
        "pictures": "".join(_picture(c, p) for c, p in pictures.items()) or _none(),
        "exponents": _exponents(document["exponents"], fits.unstated(document["rows"])),
        "rows": "".join(_suites(document["rows"])) or _none(),
        "command": escape(document["command"]),
        "machine": _machine(document),
    }
    page = files("invconv_benchmarks").joinpath("page.html").read_text("utf-8")
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text, 1)
    return page


def _none() -> str:
    return '<p class="soft">Nothing of the kind was measured in this run.</p>'


def _lead(document: Document) -> str:
    notes = [] if document["complete"] else ["<b>The run was stopped early.</b>"]
    if document["limits"]:
        verdicts = [v["verdict"] for v in document["limits"]]
        notes.append(
            f"Limits: {verdicts.count('pass')} passed, {verdicts.count('miss')} missed, "
            f"{verdicts.count('unclear')} unclear: a limit passes where the whole spread keeps it, "
            "and is missed where none of it does."
        )
    loads = [v for v in document["load"].values() if v is not None]
    if max(loads, default=0) > document["environment"]["cores"] + 1:
        notes.append(
            f"<b>The machine was busy with other work</b> (load {max(loads):g}): "
            "intervals are wide, and absolute times say little."
        )
    notes.append(
        f"{document['passes']} passes in {document['seconds']:.0f} s"
        f"{', quick' if document['quick'] else ''}. {' '.join(map(_sentence, document['not_run']))}"
    )
    return "".join(f'<p class="lead">{note}</p>' for note in notes)


def _sentence(text: str) -> str:
    return escape(text) + "."


def table(head: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]], text: int) -> str:
    """Return a table of escaped cells; the first ``text`` columns are words.

    Parameters
    ----------
    rows : iterable of (class, cells)
    """

    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if i < text else ''}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f'<tr class="{name}">{line("td", cells)}</tr>' for name, cells in rows)
    return (
        f'<div class="wide"><table><thead><tr>{line("th", map(escape, head))}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _limits(verdicts: list[dict[str, Any]]) -> str:
    parts = []
    for limit, some in groupby(verdicts, key=lambda v: v["limit"]):
        rows = [
            (
                "",
                (
                    escape(v["what"]),
                    f"{v['bound']:g}",
                    f"{v['value']:.3g}",
                    "" if v["low"] == v["high"] else f"{v['low']:.3g}–{v['high']:.3g}",
                    f'<span class="{v["verdict"]}">{v["verdict"]}</span>',
                ),
            )
            for v in some
        ]
        passed = sum(">pass<" in cells[-1] for _, cells in rows)
        body = table(("row", "limit", "value", "spread", "verdict"), rows, 1)
        parts.append(f"<h3>{escape(limit)}: {passed} of {len(rows)}</h3>{body}")
    return "".join(parts) or _none()


def _picture(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _exponents(fitted: list[dict[str, Any]], unstated: str) -> str:
    rows = [
        (
            "ours" if f["role"] == "ours" else "",
            (
                f["axis"],
                escape(tables.place(f)),
                escape(f["contender"]),
                f["range"],
                f"{tables.size(f['start'])}–{tables.size(f['stop'])}",
                str(f["points"]),
                f"{f['value']:.2f} ± {f['error']:.2f}",
            ),
        )
        for f in fitted
    ]
    head = ("axis", "library", "what", "fitted to", "range", "points", "exponent")
    note = f'<p class="soft">{escape(unstated.capitalize())}.</p>' if unstated else ""
    return (table(head, rows, 4) if rows else "") + note or _none()


_POOL = ("internal_api", "version", "architecture", "num_threads")
_HEAD = (
    "map", "shape", "", "threads", "library", "what", "median", "p10–p90", "÷ plain", "spread",
    f"÷ {CONV2D}", "spread", "roofline", "memory", "residual", "first", "samples",
)  # fmt: skip


def _suites(rows: list[Row]) -> Iterator[str]:
    for suite, groups in groupby(grouped(rows), key=lambda g: g[0]["suite"]):
        lines = [
            ((("ours " if r["role"] == "ours" else "") + ("new" if i == 0 else "")), _cells(r))
            for group in groups
            for i, r in enumerate(group)
        ]
        yield (
            f"<details><summary>{escape(suite)}: {len(lines)} rows</summary>"
            f"{table(_HEAD, lines, 6)}</details>"
        )


def _cells(row: Row) -> tuple[str, ...]:
    head = (
        escape(row["map"]),
        as_text(row["shape"]),
        row["dtype"].replace("float", "f"),
        str(row["threads"]),
        escape(tables.place(row)),
        escape(row["contender"]),
    )
    if not row["passes"]:
        return (*head, escape(row["error"]), *("",) * (len(_HEAD) - 7))
    return (
        *head,
        tables.milliseconds(row["median"]),
        f"{1e3 * row['p10']:.3g}–{1e3 * row['p90']:.3g}",
        *_stated(tables.own_ratio(row)),
        *_stated(tables.common_ratio(row)),
        f"{row['roofline']:.0%}" if row["roofline"] is not None else "–",
        tables.memory(row).replace("-", "–"),
        f"{row['residual']:.1e}" if row["residual"] is not None else "–",
        tables.milliseconds((row["plan"] or 0) + (row["first"] or 0)),
        "+".join(str(len(samples)) for samples in row["passes"]),
    )


def _stated(found: Interval | None) -> tuple[str, str]:
    if found is None:
        return "–", "–"
    return f"{found.value:.3g}", f"{found.low:.3g}–{found.high:.3g}"


def _machine(document: Document) -> str:
    environment = document["environment"]
    items = {
        "processor": f"{environment['cpu']}, {environment['cores']} cores",
        "memory": f"{(environment['memory_bytes'] or 0) / 2**30:.0f} GiB",
        "GPU": ", ".join(environment["gpus"]) or "none; not yet run on one",
        "system": f"{environment['platform']}, Python {environment['python']}",
        "load": ", ".join(f"{v} at the {k}" for k, v in document["load"].items()),
        "versions": ", ".join(f"{k} {v}" for k, v in environment["versions"].items()),
        "commit": environment["commit"],
        "command": document["command"],
        "ceilings": "; ".join(
            f"{c['library']} {c['device']} {c['dtype']}, {c['threads']} thr: "
            f"{c['gemm_flops'] / 1e9:.0f} GFLOP/s, {c['copy_bytes'] / 1e9:.1f} GB/s"
            for c in document["ceilings"]
        ),
        "thread pools": "; ".join(
            f"{threads} thr: "
            + ", ".join(" ".join(str(p[k]) for k in _POOL if p.get(k) is not None) for p in pools)
            for threads, pools in document["pools"].items()
        ),
    }
    text = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in items.items())
    return f"<dl>{text}</dl>"
