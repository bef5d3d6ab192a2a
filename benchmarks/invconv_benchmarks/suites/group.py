"""A group: a map on images that all contenders run in turns in one process."""

from __future__ import annotations

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
    """A map on images, which all libraries and peers run in turns in one process.

    Attributes
    ----------
    suite, map : str
        One of `SUITES`, and a name that its contenders know, such as "corner 2".
    shape : tuple of int
        (B, C, *grid).
    does : tuple of str
        Calls to time: some of "forward", "inverse", "unprepared".
    peers : tuple of str
        Alternatives, see `invconv_benchmarks.contenders.references.PEERS`.
    quick : bool
        Whether ``--quick`` runs it.
    thorough : bool
        Whether it runs in every dtype and with every number of threads, instead of in the first of
        the dtypes with the most threads.
    axis : str
        In the suite growth, the size that grows along the series of this group.
    limit : float or None
        The most that our time may be of the plain one's; in "odd", NumPy's of the yardstick's.
    dtype : str
        Filled in by `select`.
    """

    suite: str
    map: str
    shape: Shape
    does: tuple[str, ...]
    peers: tuple[str, ...] = ()
    quick: bool = False
    thorough: bool = False
    axis: str = ""
    limit: float | None = None
    dtype: str = ""

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

# (B, C, H, W) of single images and of batches, as a flow's levels have them
LIMIT_SHAPES = (
    (1, 12, 16, 16),
    (64, 12, 16, 16),
    (64, 24, 8, 8),
    (64, 48, 4, 4),
    (100, 3, 32, 32),
    (100, 12, 32, 32),
    (1, 12, 64, 64),
    (16, 48, 64, 64),
    (1, 3, 256, 256),
    (1, 12, 512, 512),
)
