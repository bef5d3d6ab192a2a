"""A group on one library and device: the map and random images there."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv_benchmarks.measure.contender import Call, Contender, Floats
from invconv_benchmarks.suites import maps
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.table import Target

Array = Any


@dataclass(frozen=True)
class Setup:
    """A group on one library and device: the map and random images there."""

    group: Group
    target: Target

    @functools.cached_property
    def conv(self) -> ic.InvertibleConv:
        """The map, in the library."""
        return self.host.asarrays(self.x)

    @functools.cached_property
    def host(self) -> ic.InvertibleConv:
        """The map, in NumPy float64."""
        return maps.build(self.group.map, self.group.shape[1], len(self.grid))

    @functools.cached_property
    def values(self) -> Floats:
        """Random images, in NumPy."""
        rng = np.random.default_rng(1)
        return rng.standard_normal(self.group.shape, np.float32).astype(self.group.dtype)

    @functools.cached_property
    def x(self) -> Array:
        """The images, in the library."""
        return self.asarray(self.values)

    @property
    def grid(self) -> tuple[int, ...]:
        """The spatial shape."""
        return self.group.shape[2:]

    def asarray(self, values: Floats) -> Array:
        """Copy NumPy values into the library, in the group's dtype."""
        return self.target.asarray(values, self.group.dtype)

    def contender(
        self, name: str, role: str, does: str, build: Callable[[], Call], images: Any = None
    ) -> Contender:
        """Return a contender of this library."""
        return Contender(name, role, does, self.target, build, images)

    def residual(self, x: Floats) -> float:
        """Return ||K x - y|| / (||x|| + ||y||) in float64, y being the images; at most 1e30."""
        x, y = x.astype(np.float64), self.values.astype(np.float64)
        rest = np.linalg.norm(self.host.forward(x) - y)
        share = float(rest / (np.linalg.norm(x) + np.linalg.norm(y)))
        return share if math.isfinite(share) else 1e30  # JSON has no NaN

    def on_images(self, function: Callable[[Array], Any]) -> Call:
        """Return a call of a function with the images, compiled where the mode compiles."""
        run, x = self.target.compile(function), self.x
        return lambda: run(x)
