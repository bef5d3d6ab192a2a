"""Names and colours of models in tables and pictures, by their mixing layers."""

from __future__ import annotations

APPEARANCE = {
    "plain": ("plain 1×1", "#333333"),
    "plu": ("PLU 1×1", "#8c8c8c"),
    "qr": ("QR 1×1", "#4c78a8"),
    "orthogonal": ("orthogonal 1×1", "#5aa9e6"),
    "circulant": ("circulant 1×1", "#1b3a8a"),
    "emerging": ("emerging 3×3", "#e4572e"),
    "emerging_plu": ("emerging, PLU", "#f4a259"),
    "emerging_qr": ("emerging, QR", "#8c1c13"),
    "periodic": ("periodic 3×3", "#2a9d8f"),
    "symmetric": ("symmetric 3×3", "#70a01f"),
    "exponential": ("exponential 3×3", "#c2378f"),
    "real_nvp": ("Real NVP", "#b07d2b"),
    "maf": ("MAF", "#8e6bbf"),
}


def title(mixing: str) -> str:
    """Return a mixing layer's name for people."""
    return APPEARANCE.get(mixing, (mixing, ""))[0]


def color(mixing: str) -> str:
    """Return a mixing layer's colour."""
    return APPEARANCE.get(mixing, ("", "black"))[1]
