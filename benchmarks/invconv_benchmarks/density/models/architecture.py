"""The architecture of a density model: all that is needed to build one, without its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from invconv.arrays.errors import CommandError, as_command_errors
from invconv.arrays.settings import choice, positive_int
from invconv.flows import architecture as glow
from invconv.flows.affine import scale_floor

MIXINGS = (*glow.MIXINGS, "real_nvp", "maf")
EMERGING = tuple(name for name in MIXINGS if name.startswith("emerging"))

T = TypeVar("T")


@dataclass(frozen=True)
class Architecture:
    """A density model of images of any size.

    Attributes
    ----------
    mixing : str
        One of `MIXINGS`: `invconv_torch.flows.Glow` with that layer between its couplings, or
        "real_nvp", which has masks in place of a mixing layer, or "maf", a masked autoregressive
        flow.
    levels : int
        How often the image is halved; a masked autoregressive flow does not.
    depth : int
        Steps a level; of a masked autoregressive flow, layers.
    width : int
        Channels inside the networks.
    kernel_size : int
        Taps along each axis of a mixing layer that is no 1x1; odd.
    scale_floor : float
        The least factor of an affine layer, at least 0 and below 1. The paper's is 0, but a sample
        is divided by the factors: above 0 it cannot explode there.
    """

    mixing: str
    levels: int
    depth: int
    width: int
    kernel_size: int = 3
    scale_floor: float = 0.1

    def __post_init__(self) -> None:
        with as_command_errors():
            choice("mixing", self.mixing, MIXINGS)
            for name in ("levels", "depth", "width", "kernel_size"):
                object.__setattr__(self, name, positive_int(name, getattr(self, name)))
            object.__setattr__(self, "scale_floor", scale_floor(self.scale_floor))
        if self.kernel_size % 2 == 0:
            raise CommandError(f"kernel_size: expected an odd number, got {self.kernel_size}")

    def require_fits(self, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return an image's shape (C, H, W).

        Raises
        ------
        ValueError
            If it is none, or cannot be halved as often as there are levels.
        """
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise CommandError(f"image_shape: expected (C, H, W), got {tuple(image_shape)}")
        channels, height, width = map(int, image_shape)
        unit = 1 if self.mixing == "maf" else 2**self.levels
        if height % unit or width % unit:
            raise CommandError(
                f"image_shape: with levels={self.levels} expected a height and a width that are "
                f"multiples of {unit}, got {height} x {width}"
            )
        return channels, height, width


def from_table(kind: type[T], name: str, values: Any) -> T:
    """Return a dataclass of the values in a table of TOML or JSON.

    Raises
    ------
    ValueError
        If a name is unknown or missing, or a value is out of range.
    TypeError
        If it is no table, or a value is of another type.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected names with values, got {values!r:.80}")
    fields = {f.name: f.default for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = {n for n, default in fields.items() if default is dataclasses.MISSING}
    if not needed <= set(values) <= set(fields):
        raise CommandError(
            f"{name}: expected {', '.join(fields)}, got {', '.join(map(str, values))}"
        )
    return kind(**values)
