"""All groups that the benchmark measures, suite by suite."""

from __future__ import annotations

from dataclasses import replace

from invconv_benchmarks.suites.group import LIMIT_SHAPES, Group, Shape

BOTH = ("forward", "inverse")
SOLVERS = ("pixel by pixel", "SciPy sparse solve", "dense solve")
ONE_BY_ONES = ("normflows 1x1", "nflows 1x1")


def _forward() -> list[Group]:
    shapes = ((64, 12, 16, 16), (100, 3, 32, 32), (16, 48, 64, 64), (1, 12, 512, 512))
    maps = ("corner 2", "corner 3", "emerging 3", "exponential 3")
    return [
        Group("forward", m, s, ("forward",), quick=s == shapes[0] and m == "emerging 3")
        for m in maps
        for s in shapes
    ]


def _inverse() -> list[Group]:
    quick = ((64, 12, 16, 16), (64, 48, 4, 4), (1, 12, 64, 64), (16, 48, 64, 64))
    peers = {(64, 12, 16, 16): SOLVERS, (64, 48, 4, 4): (*SOLVERS, "MAF sampling")}
    one = Group("inverse", "corner 2", (1, 12, 16, 16), BOTH, thorough=True)
    corner = replace(one, does=(*BOTH, "kernel"))
    return [
        *(replace(corner, shape=s, quick=s in quick, peers=peers.get(s, ())) for s in LIMIT_SHAPES),
        replace(corner, shape=(64, 48, 16, 16)),
        replace(corner, map="corner 3", shape=(64, 12, 16, 16)),
        replace(corner, map="corner 3", shape=(16, 48, 64, 64)),
        replace(one, map="emerging 3", shape=(64, 12, 16, 16), quick=True),
        replace(one, map="emerging 3", shape=(16, 48, 64, 64)),
        replace(one, map="periodic 3", shape=(64, 12, 16, 16), quick=True),
        replace(one, map="periodic 3", shape=(16, 48, 64, 64)),
        replace(one, map="exponential 3", shape=(64, 12, 16, 16)),
        replace(one, map="symmetric 3", shape=(64, 12, 16, 16), quick=True),
        replace(one, map="circular 3", shape=(64, 12, 16, 16)),
        replace(one, map="qr", shape=(1, 512, 1, 1), does=("matrix",), peers=("reflections",)),
        replace(one, shape=(1, 12, 8, 8), does=("same weights", "new weights"), quick=True),
    ]


def _periodic() -> list[Group]:
    does = ("forward", "inverse", "unprepared")
    shapes = ((64, 12, 16, 16), (100, 3, 32, 32), (16, 48, 64, 64))
    return [
        Group("periodic", m, s, does, quick=s == shapes[0] and m == "periodic 5")
        for m in ("periodic 3", "periodic 5", "symmetric 3")
        for s in shapes
    ]


def _pointwise() -> list[Group]:
    shapes = ((64, 12, 16, 16), (16, 48, 64, 64), (64, 192, 8, 8))
    return [
        Group(
            "pointwise",
            m,
            s,
            ("forward", "inverse", "unprepared"),
            ONE_BY_ONES if m in ("plain", "plu") else (),
            quick=s == shapes[0] and m == "plu",
        )
        for m in ("plain", "plu", "qr", "orthogonal", "circulant", "actnorm")
        for s in shapes
    ]


def _gradient() -> list[Group]:
    shapes = ((64, 12, 16, 16), (64, 48, 4, 4), (100, 3, 32, 32), (16, 48, 64, 64))
    return [
        Group(
            "gradient",
            "corner 2",
            s,
            ("gradient",),
            () if s == shapes[-1] else ("autograd through the wavefronts",),
            quick=s == shapes[1],
        )
        for s in shapes
    ]


def _scaling() -> list[Group]:
    points: list[tuple[str, str, Shape, bool]] = []
    for n in (64, 128, 256, 512, 1024, 2048, 4096):
        points.append(("pixels", "corner 2", (1, 3, n, n), n in (64, 256, 1024)))
    for b in (1, 4, 16, 64, 256):
        points.append(("batch", "corner 2", (b, 12, 16, 16), b in (4, 16, 64)))
    for c in (4, 8, 16, 32, 64, 128, 256):
        points.append(("channels", "corner 2", (16, c, 16, 16), c in (8, 32, 128)))
    for k in (2, 3, 4, 5, 6):
        points.append(("kernel", f"corner {k}", (16, 12, 32, 32), k <= 4))
    return [Group("scaling", m, s, BOTH, axis=axis, quick=quick) for axis, m, s, quick in points]


GROUPS = (
    *_inverse(),
    *_forward(),
    *_periodic(),
    *_pointwise(),
    *_gradient(),
    *_scaling(),
)


def select(suite: str, shapes: list[Shape], dtypes: tuple[str, ...], quick: bool) -> list[Group]:
    """Return the groups of a suite, one a dtype.

    Parameters
    ----------
    suite : str
        One of `SUITES`, or "all".
    shapes : list of (B, C, H, W)
        Instead of the suite's own; the scaling suite has only its own.
    dtypes : tuple of str
    quick : bool
        Leave out what is not marked as quick, and all dtypes but the first.
    """
    chosen = [g for g in GROUPS if suite in (g.suite, "all") and (g.quick or not quick)]
    if shapes:
        kept = [g for g in chosen if g.axis == "" and "matrix" not in g.does]
        first: dict[tuple[str, str, Shape], Group] = {}
        for g in (replace(g, shape=s, peers=()) for g in kept for s in shapes):
            first.setdefault((g.suite, g.map, g.shape), g)
        chosen = list(first.values())
    return [
        replace(g, dtype=dtype)
        for g in chosen
        for dtype in (dtypes if g.thorough and not quick else dtypes[:1])
    ]
