"""How models are named and coloured in tables and pictures, by their mixing layers."""

from __future__ import annotations

TITLES = {
    "plain": "plain 1×1",
    "plu": "PLU 1×1",
    "qr": "QR 1×1",
    "orthogonal": "orthogonal 1×1",
    "circulant": "circulant 1×1",
    "emerging": "emerging 3×3",
    "emerging_plu": "emerging, PLU",
    "emerging_qr": "emerging, QR",
    "periodic": "periodic 3×3",
    "symmetric": "symmetric 3×3",
    "exponential": "exponential 3×3",
    "real_nvp": "Real NVP",
    "maf": "MAF",
}
COLORS = {
    "plain": "#333333",
    "plu": "#8c8c8c",
    "qr": "#4c78a8",
    "orthogonal": "#5aa9e6",
    "circulant": "#1b3a8a",
    "emerging": "#e4572e",
    "emerging_plu": "#f4a259",
    "emerging_qr": "#8c1c13",
    "periodic": "#2a9d8f",
    "symmetric": "#70a01f",
    "exponential": "#c2378f",
    "real_nvp": "#b07d2b",
    "maf": "#8e6bbf",
}


def title(mixing: str) -> str:
    """Return a mixing layer's name for people."""
    return TITLES.get(mixing, mixing)
