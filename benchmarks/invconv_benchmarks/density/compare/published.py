"""Published bits/dim of the same kinds of layers, of other images and larger models."""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "CDFlow's Table 2 (arXiv 2510.25323), L = 3, K = 32, galaxies L = 2, K = 8"
DATA = ("CIFAR-10", "ImageNet 32", "galaxies")


class Published(NamedTuple):
    """A row of the table: our row of the same kind, if any, and bits/dim as printed."""

    name: str
    mixing: str | None
    bits: tuple[str, str, str]
    parameters: str  # of the model for CIFAR-10


PUBLISHED = (
    Published("Real NVP", "real_nvp", ("3.49", "4.28", "2.11"), "6.4 M"),
    Published("Glow", "plain", ("3.36", "4.09", "2.02"), "44.2 M"),
    Published("Emerging", "emerging", ("3.34", "4.09", "1.98"), "46.6 M"),
    Published("Woodbury", None, ("3.42", "4.09", "2.01"), "45.3 M"),
    Published("Butterfly", None, ("3.33", "4.09", "1.95"), "44.4 M"),
    Published("CDFlow", "circulant", ("3.31", "4.04", "1.92"), "44.2 M"),
)
