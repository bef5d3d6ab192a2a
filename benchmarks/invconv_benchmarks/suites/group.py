"""A group: a map on images that all contenders run in turns in one process."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]

SUITES = ("forward", "inverse", "periodic", "pointwise", "gradient", "scaling")


@dataclass(frozen=True)
class Group:
    """A map on images, which all libraries and peers run in turns in one process.

    Attributes
    ----------
    suite : str
        One of `SUITES`.
    map : str
        A name that `invconv_benchmarks.suites.maps.build` knows, such as "corner 2".
    shape : tuple of int
        (B, C, H, W).
    does : tuple of str
        What is timed: some of "forward", "inverse", "kernel", "gradient", "unprepared", "matrix",
        "same weights", "new weights".
    peers : tuple of str
        What else a user could run, see `invconv_benchmarks.contenders.references.PEERS`.
    quick : bool
        Whether ``--quick`` runs it.
    thorough : bool
        Whether it runs in every dtype and with every number of threads, instead of in the first of
        the dtypes with the most threads.
    axis : str
        Of the scaling suite: what grows along the series that this is a point of.
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
    dtype: str = ""

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.shape[2] * self.shape[3]

    @property
    def title(self) -> str:
        """Words for it, unique among the groups of a run."""
        series = f" ({self.axis})" if self.axis else ""
        return f"{self.suite}: {self.map}, {as_text(self.shape)}, {self.dtype}{series}"


def as_text(shape: Shape) -> str:
    """Return "64x12x16x16"."""
    return "x".join(map(str, shape))


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
