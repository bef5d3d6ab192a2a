"""Functions that XLA splits between devices along their batch axes.

XLA partitions convolutions, products and loops by itself. For a Fourier transform or a triangular
solve it would gather a batch that is spread over several devices onto each of them. If it is told
that samples are independent of each other, it leaves each sample on its device.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from invconv.arrays.namespaces import Array
from invconv_jax import private

Settings = tuple[tuple[str, Any], ...]


class SplitByBatch:
    """A function of arrays, then settings by name; its last array and its result have batch axes.

    Calls can be compiled, vectorised and, if the transpose is given, differentiated. The last array
    and the result have the same number of axes, and results at different places of the batch axes
    are independent. ``whole`` lists their other axes: the first ones, none negative, or the last
    ones, all negative. ``transpose`` is that of a function that is linear in its only array: it
    takes the cotangent, the array's type and the settings. The first ``shared`` axes of every array
    are batch axes, unless an array has size 1 there; if 0, only the last array has batch axes. If
    ``summed``, all arrays have batch axes, and the result is the sum over them.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Array],
        whole: tuple[int, ...],
        transpose: Callable[..., Array] | None = None,
        *,
        shared: int = 0,
        summed: bool = False,
    ) -> None:
        self.function, self.whole = function, whole
        self.shared, self.summed = shared, summed
        self.primitive = private.Primitive(name)
        self.primitive.def_impl(_run)
        self.primitive.def_abstract_eval(self._type_of_result)
        private.register_lowering(self.primitive, self._lower)
        private.primitive_batchers[self.primitive] = self.vectorise
        if transpose is not None:
            private.deflinear2(
                self.primitive,
                lambda bar, x, *, program, settings: [transpose(bar, x.aval, **dict(settings))],
            )

    def whole_of(self, ndim: int) -> set[int]:
        """Return the axes of the last array that are not batch axes."""
        return {*range(self.shared, ndim)} if self.shared else {a % ndim for a in self.whole}

    def shares(self, other: Sequence[int], shape: Sequence[int], axis: int) -> bool:
        """Tell whether an axis of ``other`` is a batch axis of the last array, of this shape."""
        if self.summed:
            return axis not in self.whole_of(len(other))
        return axis < self.shared and other[axis] == shape[axis]

    def __call__(self, *arrays: Array, **settings: Any) -> Array:
        pairs = tuple(settings.items())
        types = tuple((tuple(a.shape), a.dtype) for a in arrays)
        program = _program(self, types, pairs, jax.config.jax_enable_x64)
        return self.primitive.bind(*arrays, program=program, settings=pairs)

    def _lower(self, context: Any, *arrays: Any, program: Any, settings: Settings) -> Any:
        if private.can_split(context):
            run = functools.partial(_run, program=program, settings=settings)
            # on one device JAX runs the function, whose types know no mesh
            context = context.replace(avals_in=program.in_avals)
        else:
            run = functools.partial(self._in_place, private.automatic_mesh(context), settings)
        return private.lower_fun(run, multiple_results=False)(context, *arrays)

    def _in_place(self, mesh: Any, settings: Settings, *arrays: Array) -> Array:
        """Run the function; tell XLA, which splits the work by itself, which axes stay whole."""

        def keep(x: Array, batched: bool = True) -> Array:
            whole = self.whole_of(x.ndim) if batched else range(x.ndim)
            spec = (None if a in whole else PartitionSpec.UNCONSTRAINED for a in range(x.ndim))
            return lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))

        if mesh is None:
            return self.function(*arrays, **dict(settings))
        *others, x = arrays
        given = *(v if self.shared else keep(v, self.summed) for v in others), keep(x)
        return keep(self.function(*given, **dict(settings)), not self.summed)

    def _type_of_result(self, *types: Any, program: Any, settings: Settings) -> Any:
        (result,), sharding = program.out_avals, types[-1].sharding
        if self.summed:
            sharding = sharding.update(spec=PartitionSpec(*(None,) * len(result.shape)))
        new = {"shape": result.shape, "dtype": result.dtype, "sharding": sharding}
        return types[-1].update(**new, weak_type=False)

    def vectorise(
        self,
        arrays: tuple[Array, ...],
        axes: tuple[int | None, ...],
        *,
        program: Any,
        settings: Settings,
    ) -> tuple[Array, int]:
        *others, x = arrays
        if any(axis is not None for axis in axes[:-1]):
            # every sample has matrices of its own: XLA may split that batch by itself
            function = functools.partial(self.function, **dict(settings))
            return jax.vmap(function, in_axes=axes)(*arrays), 0
        front = min(self.whole) < 0
        there = 0 if front else x.ndim - 1
        return self(*others, jax.numpy.moveaxis(x, axes[-1], there), **dict(settings)), there


def _rule(split: SplitByBatch, shapes: list[tuple[int, ...]]) -> str:
    """Return a name for every axis of the arrays and the result; batch axes share names."""
    *others, last, result = shapes
    arrays = [
        [f"b{a}" if split.shares(other, last, a) else f"m{i}_{a}" for a in range(len(other))]
        for i, other in enumerate(others)
    ]
    whole = split.whole_of(len(last))
    x = [f"x{a}" if a in whole else f"b{a}" for a in range(len(last))]
    whole = {*range(len(result))} if split.summed else whole
    y = [f"y{a}" if a in whole else f"b{a}" for a in range(len(result))]
    return f"{', '.join(' '.join(names) for names in [*arrays, x])} -> {' '.join(y)}"


@functools.cache
def _whole(ndim: int, batch_axes: int) -> SplitByBatch:
    return SplitByBatch(
        f"invconv_whole_{ndim}_{batch_axes}",
        lambda x: x,
        tuple(range(batch_axes - ndim, 0)),
        lambda bar, _: whole(bar, batch_axes),
    )


def whole(x: Array, batch_axes: int = 1) -> Array:
    """Return x, split between devices along its first axes only; its cotangent is split likewise.

    XLA splits a convolution like its operands. Then the gradient may come out twice as large: by
    the image, if the channels and the height are split; by the kernel, if the height is split along
    one of two mesh axes (jax 0.10.2).
    """
    return _whole(x.ndim, batch_axes)(x)


def mesh_axes(x: Array) -> tuple[Any, ...]:
    """Return the explicit mesh axes that split each axis of an array, () if none does.

    Automatic mesh axes are no part of an array's type, and XLA moves the array as needed.
    """
    sharding = getattr(x.aval, "sharding", None)
    return () if sharding is None or not any(sharding.spec) else tuple(sharding.spec)


def beside(weights: Array, x: Array) -> Array:
    """Return weights that are whole on each device if x is split along explicit mesh axes.

    The gradient of weights without a mesh in their type has none either, and JAX refuses to place
    that sum over samples.
    """
    no_mesh = any(mesh_axes(x)) and jax.typeof(weights).sharding.mesh.empty
    return on_the_mesh_of(x, weights, ()) if no_mesh else weights


def on_the_mesh_of(x: Array, y: Array, spec: tuple[Any, ...]) -> Array:
    """Return y, split along some axes of the mesh of x."""
    sharding = jax.typeof(x).sharding.update(spec=PartitionSpec(*spec))
    return jax.sharding.reshard(y, sharding)


@functools.lru_cache(maxsize=1024)
def _program(
    split: SplitByBatch,
    types: tuple[tuple[tuple[int, ...], Any], ...],
    settings: Settings,
    x64: bool,  # part of the cache's key: else JAX takes float64 for float32
) -> Any:
    """Return the function as JAX's intermediate code, with its rules for the partitioner.

    The program is in a primitive's settings, so that JAX learns that it needs the devices.
    """

    def local(*arrays: Array) -> Array:
        return split.function(*arrays, **dict(settings))

    def summed(spec: Any, *arrays: Array) -> Array:
        return lax.psum(local(*arrays), jax.tree.leaves(spec))

    def partition(mesh: Any, arrays: Any, result: Any) -> tuple[Any, ...]:
        *others, x = arrays
        ndim = len(x.shape)
        known = getattr(x.sharding, "spec", ())  # GSPMD may not know it yet, or name no axes
        spec = list((*known, *(None,) * ndim)[:ndim])
        for axis in split.whole_of(ndim):
            spec[axis] = None
        kept, here = NamedSharding(mesh, PartitionSpec(*spec)), NamedSharding(mesh, PartitionSpec())
        if split.summed:
            return mesh, functools.partial(summed, spec), here, (kept,) * len(arrays)
        specs = [
            [spec[a] if split.shares(v.shape, x.shape, a) else None for a in range(len(v.shape))]
            for v in others
        ]
        return mesh, local, kept, (*(NamedSharding(mesh, PartitionSpec(*s)) for s in specs), kept)

    function, given = private.custom_partitioning(local), [jax.ShapeDtypeStruct(*t) for t in types]
    shapes = [tuple(a.shape) for a in (*given, jax.eval_shape(local, *given))]
    function.def_partition(partition=partition, sharding_rule=_rule(split, shapes))
    return jax.make_jaxpr(function)(*given)


def _run(*arrays: Array, program: Any, settings: Settings) -> Array:
    (result,) = private.jaxpr_as_fun(program)(*arrays)
    return result
