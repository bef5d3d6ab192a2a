"""The source text: the constants of a plan as macros, then the source files of this folder."""

from __future__ import annotations

import functools
from pathlib import Path

FILES = ("common.cuh", "weights.cu", "solve.cu")

Constants = tuple[tuple[str, str], ...]


@functools.cache
def sources() -> dict[str, str]:
    """Return the text of each source, by the name of its file."""
    here = Path(__file__).parent
    return {name: (here / name).read_text("utf-8") for name in FILES}


def source(constants: Constants, texts: dict[str, str] | None = None) -> str:
    """Return the whole text for some constants.

    The constants are those of a `invconv.kernels.cuda.plan.Plan`; ``texts`` are compiled instead of
    `sources`.
    """
    macros = [f"#define {name} {value}" for name, value in constants]
    parts = [f'#line 1 "{name}"\n{text}' for name, text in (texts or sources()).items()]
    return "\n".join([*macros, *parts])
