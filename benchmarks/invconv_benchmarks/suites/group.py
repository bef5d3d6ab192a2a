"""A group: a map on images that all contenders run in turns in one process."""

from dataclasses import dataclass

Shape = tuple[int, ...]

LIBRARY_SUITES = ("forward", "inverse", "periodic", "pointwise", "growth")
ONE_THREAD = {
    "odd": ("numpy", "torch", "jax"),
    "overhead": ("torch",),
    "threads": ("numpy", "torch"),
    "checks": ("numpy",),
}
SUITES = (*LIBRARY_SUITES, *ONE_THREAD)  # the latter in these libraries, with one thread
ALTERNATING = ("overhead", "checks")  # one call each in turns, with the caches as others left them


@dataclass(frozen=True)
class Group:
    """A map on images, which all libraries and peers run in turns in one process."""

    suite: str  # one of `SUITES`
    map: str  # a name that the suite's contenders know, such as "corner 2"
    shape: Shape  # (B, C, *grid)
    does: tuple[str, ...]  # calls to time, such as "forward", "inverse", "unprepared"
    peers: tuple[str, ...] = ()  # alternatives: names of `contenders.references.PEERS`
    quick: bool = False  # whether ``--quick`` runs it
    # whether in every dtype and number of threads, else in the first one with the most threads
    thorough: bool = False
    axis: str = ""  # the size that grows along this group's series, in the suite growth
    limit: float | None = None  # of our time ÷ the plain one's; in "odd", NumPy's ÷ the yardstick's
    dtype: str = ""  # which `select` fills in

    @property
    def title(self) -> str:
        """Words for it, unique among the groups of a run."""
        series = f" ({self.axis})" if self.axis else ""
        return f"{self.suite}: {self.map}, {as_text(self.shape)}, {self.dtype}{series}"


def as_text(shape: Shape) -> str:
    """Return "64x12x16x16"."""
    return "x".join(map(str, shape))


# contenders by which all libraries are measured: peers of a group, else PyTorch's convolution
LFILTER, SPECTRAL = "scipy.signal.lfilter", "SciPy's rfft2, product, irfft2"
CONV2D, CONV1D = "F.conv2d", "F.conv1d"
YARDSTICKS = (LFILTER, SPECTRAL, CONV2D, CONV1D)

# limits of inverse / F.conv2d of a 2 x 2 corner with one thread in NumPy, in float32 and float64,
# by (B, C, H, W) of single images and of batches, as a flow's levels have them
AGAINST_CONV2D: dict[Shape, tuple[float, float]] = {
    (1, 12, 16, 16): (3.0, 3.0),
    (64, 12, 16, 16): (0.8, 0.8),
    (64, 24, 8, 8): (0.6, 0.75),
    (64, 48, 4, 4): (0.8, 0.9),
    (100, 3, 32, 32): (0.4, 0.6),
    (100, 12, 32, 32): (0.85, 0.4),
    (1, 12, 64, 64): (1.0, 1.0),
    (16, 48, 64, 64): (1.3, 0.6),
    (1, 3, 256, 256): (0.6, 0.8),
    (1, 12, 512, 512): (1.1, 0.4),
}
LIMIT_SHAPES = tuple(AGAINST_CONV2D)
