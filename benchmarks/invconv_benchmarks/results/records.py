"""Dataclasses from JSON: `structured` undoes `dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def structured(kind: Any, value: Any) -> Any:
    """Return a value of JSON as a type: a dataclass, or a list, tuple, dict or union with None.

    A value of another type, such as a number, is returned as it is; the schema has checked it.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: structured(hints[name], part) for name, part in value.items()})
    parts = get_args(kind)
    match get_origin(kind):
        case origin if origin is list or origin is tuple:
            return origin(structured(parts[0], part) for part in value)
        case origin if origin is dict:
            return {name: structured(parts[1], part) for name, part in value.items()}
        case origin if origin is UnionType:
            return None if value is None else structured(parts[0], value)
    return value
