"""Cases, an oracle and laws: every array library must agree on them. A pytest plugin runs them.

`check_operator` holds an operator of one's own to every law that holds for any.
"""

# Rooms, from the top: `info`, `own`; `plugin`, with the command; cuda, report; run; laws; cases,
# libraries, pages; truth. A room imports those after it and `invconv`, none before or beside it.

from typing import Any

__all__ = ["check_operator"]


def __getattr__(name: str) -> Any:
    if name == "check_operator":  # loaded here, so that the command starts quickly
        from invconv_conformance.own import check_operator

        return check_operator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
