"""The law of the compiled kernel: one order of the sums, whatever else runs and whoever asks."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.cpu import compiled, costs, machine, threads
from invconv.kernels.primitives import Plan
from invconv_conformance.cases.case import Shape
from invconv_conformance.laws.law import Floats, Measure, law, truth
from invconv_conformance.laws.setting import Setting

_SAMPLES = 35  # of a batch: more than two vectors have lanes, and some are left over
_FULL = 34  # of a batch that fills vectors, and has a rest that is solved apart
# of one channel: more than a buffer holds at a time, so wide or so tall
_LARGE: tuple[Shape, ...] = ((9000,), (20, 9000), (700, 64), (7, 20, 90), (3, 5, 20, 30))
_WIDE = (50, 36000)  # a second thread comes before the first one has done it all
_THREADS = 2
_ROUNDS = 5  # so that threads meet in different places

Solve = Callable[[Floats], Floats]


@law("same_bits", "one order of the sums")
def same_bits(s: Setting) -> Iterator[Measure]:
    """The compiled kernel gives an image's inverse the same bits alone, in a batch, in any thread,
    in every library and mode.
    """
    shape, channels = s.case.spatial_shape, s.plain.channels
    if s.dtype not in ("float32", "float64"):
        return
    images = s.images[1].astype(s.dtype).reshape(-1, channels, *shape)
    host = s.plain.asarrays(images).prepare(shape, check=False)
    if isinstance(s.plain, ic.AutoregressiveConv):
        there = machine.reason() is None
        yield truth(_is_kernel(host.plan) == there, "the kernel, where it is there")
    if not _is_kernel(host.plan):  # then it is no library's; JAX would compile it to say so
        return
    prepared = s.plain.prepare(shape, check=False)
    if not _is_kernel(prepared.plan):
        return
    wanted = np.concatenate([host.inverse(image[None]) for image in images[:_SAMPLES]])
    if s.target.mode == "eager":
        yield from _however_called(s, prepared, images[:_SAMPLES], wanted)
    else:
        found = to_numpy(s.conv.inverse(s.array(s.images[1])))
        yield truth(_same(found.reshape(images.shape)[:_SAMPLES], wanted), "in compiled code")
    if s.target.library.name == "numpy":
        for grid in (grid for grid in _LARGE if len(grid) == len(shape)):
            yield from _large(s, grid)
        if len(shape) == 2:
            yield from _shared(s)


def _however_called(
    s: Setting, prepared: ic.PreparedInverse, images: Floats, wanted: Floats
) -> Iterator[Measure]:
    def solve(some: Floats) -> Floats:
        return to_numpy(prepared.inverse(s.array(some)))

    batch, everywhere = (np.resize(a, (_SAMPLES, *a.shape[1:])) for a in (images, wanted))
    yield truth(_same(solve(batch), everywhere), "in a batch")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(solve, [image[None] for image in images] * _THREADS)
        same = [_same(x[0], wanted[i % len(images)]) for i, x in enumerate(found)]
    yield truth(all(same), "alone, in any thread")


def _large(s: Setting, grid: Shape) -> Iterator[Measure]:
    solve, y = _two_images(s, grid)
    wanted = np.concatenate([solve(image[None]) for image in y])
    batch = np.resize(y, (_FULL, *y.shape[1:]))
    yield truth(_same(solve(batch), wanted), "large, in a batch")
    with _shared_out():
        yield truth(_same(solve(batch), wanted), "large, in a batch that threads share")


def _shared(s: Setting) -> Iterator[Measure]:
    solve, y = _two_images(s, _WIDE)
    wanted = [solve(image[None])[0] for image in y]
    with _shared_out():
        found = (_same(solve(y[i : i + 1])[0], wanted[i]) for i in (0, 1) * _ROUNDS)
        yield truth(all(found), "wide, shared by threads")


def _two_images(s: Setting, grid: Shape) -> tuple[Solve, Floats]:
    """Return a solve on a grid, its last axis for one channel, and two images to solve in turn."""
    channels = s.plain.channels
    grid = (*grid[:-1], max(2, grid[-1] // channels))
    prepared = s.plain.prepare(grid, check=False)
    y = np.resize(s.case.rng().standard_normal(9973), (2, channels, *grid)).astype(s.dtype)

    def solve(images: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # of inverses that grow
            return np.asarray(prepared.inverse(images))

    return solve, y


def _is_kernel(plan: Plan) -> bool:
    return all(map(_is_kernel, plan.steps)) if plan.steps else plan.method == "compiled kernel"


def _same(x: Floats, y: Floats) -> bool:
    """Tell whether x has the numbers of y, perhaps several times, but for the kind of a NaN."""
    x = x.reshape(-1, *y.shape)
    y, numbers = np.broadcast_to(y, x.shape), ~np.isnan(x)
    signs = np.array_equal(np.signbit(x[numbers]), np.signbit(y[numbers]))
    return signs and np.array_equal(x, y, equal_nan=True)


@contextmanager
def _shared_out() -> Iterator[None]:
    number = threads.number
    compiled._runs.cache_clear()
    ic.set_num_threads(_THREADS)
    try:
        with mock.patch.object(costs, "SHARED", 0.0):
            yield
    finally:
        ic.set_num_threads(number)
        compiled._runs.cache_clear()
