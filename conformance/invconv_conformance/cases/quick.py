"""The cases of ``--quick``."""

from __future__ import annotations

# one case of each kind, enough to see within half a minute that a library is wired up
QUICK = (
    "corner-2d+-",
    "corner-bias",
    "raster-k2x3-dilated",
    "emerging-2d",
    "periodic-even-dilated",
    "conv1x1-2d",
    "pluconv1x1-2d",
    "qrconv1x1-m2",
    "actnorm-2d",
    "chain-inverses",
    "singular-corner",
    "ill-corner",
    "tiny-periodicconv",
)
# what a kernel may get wrong besides, where there is one and cases are not compiled for seconds
QUICK_KERNEL = (
    "corner-on-18-rows",
    "raster-on-18-rows",
    "corner-3d-on-18-rows",
    "corner-17-images",
    "corner-25-channels",
    "corner-4d-++-",
    "raster-3d+1",
    "ill-pixel",
)
