"""Keep pytest from importing the adapters of libraries that are not installed."""

from importlib.util import find_spec
from pathlib import Path

_ADAPTERS = Path(__file__).parent.glob("invconv_*")
collect_ignore = [a.name for a in _ADAPTERS if find_spec(a.name.removeprefix("invconv_")) is None]
