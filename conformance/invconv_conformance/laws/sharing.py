"""The laws of shared things: an operator in several threads, the memory of results, and the one
order of the compiled kernel's sums, whatever else runs and whichever library calls.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, ops_of, to_numpy
from invconv.kernels.cpu import compiled, costs, machine, threads
from invconv.kernels.primitives import Plan
from invconv_conformance.cases.table import Shape
from invconv_conformance.laws.law import Floats, Measure, largest, law, same, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, Setting
from invconv_conformance.libraries import Parameters, Pullback

_CALLS, _OF_A_LAYER = 4, 32  # calls on a grid; a layer decides at each call what to keep
_SIZES = range(1, 9)  # of the last axis: more grids than a layer in eval mode keeps inverses of

Run = Callable[[Array], tuple[Array, ...]]


@law("threads", eager=True)
def in_threads(s: Setting) -> Iterator[Measure]:
    """Threads that call one operator, prepared inverse or layer on many grids get the bits that one
    thread gets.
    """
    if not (s.case.spatial_shape and ops_of(s.array(np.zeros(()))).shared_by_threads):
        return
    alone, shared = _ways(s, s.fresh()), _ways(s, s.fresh())
    *others, last = s.case.spatial_shape
    sizes = sorted({last, *_SIZES})
    if s.target.library.compiles_eagerly or not s.target.library.native:
        sizes = sizes[-2:]  # a call takes long
    shape = *s.case.batch_shape, s.plain.channels, *others
    every = [s.array(np.resize(s.images[1], (*shape, n))) for n in sizes]
    for way, run in alone.items():
        # a grid is judged before it is first solved on, which takes the longest
        images = every[-2:] if way == "inverse_and_log_det" else every
        wanted = [_outcome(run, image) for image in images]
        calls = _OF_A_LAYER if way == "a layer's inverse" else _CALLS
        order = s.case.rng().permutation(np.repeat(range(len(images)), calls))
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads take turns as often as Python can
        try:
            with ThreadPoolExecutor() as pool:
                again = [images[i] for i in order]
                found = list(pool.map(functools.partial(_outcome, shared[way]), again))
        finally:
            sys.setswitchinterval(before)
        yield truth(all(_equal(f, wanted[i]) for f, i in zip(found, order, strict=True)), way)


def _ways(s: Setting, conv: ic.InvertibleConv) -> dict[str, Run]:
    """Return the ways to call an operator: as it is, prepared for each grid, and in a layer."""
    axes = len(s.case.spatial_shape)
    kept: dict[Shape, ic.PreparedInverse] = {}

    def prepared(y: Array) -> tuple[Array, Array]:
        grid = tuple(y.shape[y.ndim - axes :])
        known = kept.get(grid) or kept.setdefault(grid, conv.prepare(grid, check=False))
        return known.inverse_and_log_det(y)

    found: dict[str, Run] = {what: getattr(conv, what) for what in DIRECTIONS}
    found["a prepared inverse"] = prepared
    if s.target.library.layer is not None:
        layer = s.target.library.layer(conv)
        found["a layer's inverse"] = lambda y: layer(y.reshape(-1, *y.shape[y.ndim - axes - 1 :]))
    return found


def _outcome(run: Run, image: Array) -> list[Floats]:
    """Return the results of a call, none where the operator is singular on the grid."""
    try:
        return [to_numpy(array) for array in run(image)]
    except ic.SingularConvError:
        return []


def _equal(some: Sequence[Array], others: Sequence[Array]) -> bool:
    alike = functools.partial(np.array_equal, equal_nan=True)
    return len(some) == len(others) and all(map(alike, map(to_numpy, some), map(to_numpy, others)))


@law("edits", eager=True)
def edits(s: Setting) -> Iterator[Measure]:
    """An edit of a result in place changes no other result, no argument, no parameter, and no later
    result; autograd takes it, and its gradient is that of the edit or refused.
    """
    x, conv = s.array(s.images[0]), s.fresh()
    held = {"x": x, **conv.parameters()}
    before = {name: to_numpy(array) for name, array in held.items()}
    calls: dict[str, Run] = {
        **_ways(s, conv),
        "forward_vjp": lambda x: _flat(conv.forward_vjp(x, x)),
        "inverse_vjp": lambda x: _flat(conv.inverse_vjp(x, x)),
        "log_det": lambda x: (conv.log_det(s.case.spatial_shape),),
    }
    for what, call in calls.items():
        results = call(x)
        wanted = [to_numpy(array) for array in results]
        for i, result in enumerate(results):
            try:
                result[...] = 7.0
            except TypeError:  # JAX's arrays are never written to
                return
            yield truth(_equal(results[i + 1 :], wanted[i + 1 :]), f"{what}, another result")
        yield truth(_equal(call(x), wanted), f"{what}, once more")
        for name, array in held.items():
            yield same(array, before[name], f"{what}, {name}")
    if s.target.library.pullback is not None:
        yield from _recorded(s, s.target.library.pullback)


def _flat(gradients: tuple[dict[str, Array], Array]) -> tuple[Array, ...]:
    return *gradients[0].values(), gradients[1]


def _recorded(s: Setting, pullback: Pullback) -> Iterator[Measure]:
    """Double results that autograd recorded, in place and in a copy."""
    x = s.array(s.images[0])
    for what in DIRECTIONS:

        def doubled(parameters: Parameters, x: Array, edit: bool, what: str = what) -> Any:
            conv: Any = s.plain.replace(**parameters)
            if what == "inverse_and_log_det":
                conv = conv.prepare(s.case.spatial_shape, check=False)
            one, two = getattr(conv, what)(x)
            if edit:
                one *= 2
                two *= 2
            return (one, two) if edit else (2 * one, 2 * two)

        bars = getattr(s.plain, what)(x)
        runs = (functools.partial(doubled, edit=edit) for edit in (False, True))
        try:
            wanted, found = (_flat(pullback(run, s.plain.parameters(), x, bars)) for run in runs)
        except RuntimeError as error:  # of a result that the derivative needs, as torch.exp's
            if "modified by an inplace" not in str(error):
                raise
            last = s.plain._path()[-1]
            keeps_y = last.inverted and not last.is_shift
            needed = what == "inverse_and_log_det" or keeps_y
            yield truth(needed, f"{what}, recorded")
            continue
        size = float(np.linalg.norm(values(x)) ** 2)
        for one, other in zip(map(values, found), map(values, wanted), strict=True):
            number = np.isfinite(other)  # the half types overflow
            yield s.two_ways(f"{what}, recorded", one[number], other[number], size)
            size += largest(other[number])


_SAMPLES = 35  # in a batch: more than the lanes of two vectors, with a rest
_FULL = 34  # in a batch that fills vectors and leaves a rest
# images of one channel, so wide or so tall that no buffer holds all of them
_LARGE: tuple[Shape, ...] = ((9000,), (20, 9000), (700, 64), (7, 20, 90), (3, 5, 20, 30))
_WIDE = (50, 36000)  # so large that a second thread joins before the first one is done
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
    if not _is_kernel(host.plan):  # then no library uses it; JAX would compile to say so
        return
    prepared = s.plain.prepare(shape, check=False)
    if not _is_kernel(prepared.plan):
        return
    few = images[:_SAMPLES]
    wanted = np.concatenate([host.inverse(image[None]) for image in few])
    if s.target.mode == "eager":

        def inverse(some: Floats) -> Floats:
            return to_numpy(prepared.inverse(s.array(some)))

        batch, everywhere = (np.resize(a, (_SAMPLES, *a.shape[1:])) for a in (few, wanted))
        yield truth(_same(inverse(batch), everywhere), "in a batch")
        with ThreadPoolExecutor(_THREADS) as pool:
            found = np.concatenate([*pool.map(inverse, [x[None] for x in few] * _THREADS)])
        yield truth(_same(found, wanted), "alone, in any thread")
    else:
        found = to_numpy(s.conv.inverse(s.array(s.images[1])))
        yield truth(_same(found.reshape(images.shape)[:_SAMPLES], wanted), "in compiled code")
    if s.target.library.name != "numpy":
        return
    for grid in (grid for grid in _LARGE if len(grid) == len(shape)):
        solve, y, wanted = _two_images(s, grid)
        batch = np.resize(y, (_FULL, *y.shape[1:]))
        yield truth(_same(solve(batch), wanted), "large, in a batch")
        with _shared_out():
            yield truth(_same(solve(batch), wanted), "large, in a batch that threads share")
    if len(shape) == 2:
        solve, y, wanted = _two_images(s, _WIDE)
        with _shared_out():
            same = (_same(solve(y[i : i + 1]), wanted[i : i + 1]) for i in (0, 1) * _ROUNDS)
            yield truth(all(same), "wide, shared by threads")


def _two_images(s: Setting, grid: Shape) -> tuple[Solve, Floats, Floats]:
    """Return a solve on a grid, its last axis for one channel, two images, and their solutions."""
    channels = s.plain.channels
    grid = (*grid[:-1], max(2, grid[-1] // channels))
    prepared = s.plain.prepare(grid, check=False)
    y = np.resize(s.case.rng().standard_normal(9973), (2, channels, *grid)).astype(s.dtype)

    def solve(images: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # of inverses that grow
            return np.asarray(prepared.inverse(images))

    return solve, y, np.concatenate([solve(image[None]) for image in y])


def _is_kernel(plan: Plan) -> bool:
    return all(map(_is_kernel, plan.steps)) if plan.steps else plan.method == "compiled kernel"


def _same(x: Floats, y: Floats) -> bool:
    """Tell whether x is y, perhaps repeated; any NaN equals any other."""
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
