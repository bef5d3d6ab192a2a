"""The arrays of an operator as those that a library trains, and those that it leaves alone."""

from collections.abc import Callable
from typing import Any

import jax

from invconv import InvertibleConv


def told_apart(conv: Any, trained: Callable[[Any], Any], constant: Callable[[Any], Any]) -> Any:
    """Return the tree of an operator with one function or the other applied to each array."""
    arrays, tree = jax.tree.flatten(conv)
    numbered = tree.unflatten(range(len(arrays)))  # an array may be in two places
    parts = jax.tree.leaves(numbered, is_leaf=lambda node: isinstance(node, InvertibleConv))
    free = {number for part in parts for number in part.parameters().values()}
    return tree.unflatten([(trained if n in free else constant)(a) for n, a in enumerate(arrays)])
