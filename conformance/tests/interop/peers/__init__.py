"""Drop-ins for flow libraries as flows of those libraries, and the rules that each library has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Flow(NamedTuple):
    """What a library makes of a layer or an operator, in the library's own terms."""

    part: Any  # the drop-in
    log_prob: Callable[[Any], Any]
    to_latent: Callable[[Any], tuple[Any, Any]]
    to_data: Callable[[Any], tuple[Any, Any]]
