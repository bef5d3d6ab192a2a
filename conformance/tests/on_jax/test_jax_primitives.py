"""JAX's native primitives: derivatives, cost, and devices that are not here."""

import re
from functools import partial
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.arrays.stencil import Stencil
from invconv.kernels import primitives
from invconv.kernels.frequencies.waves import fourier
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.cases.table import CASES
from invconv_jax.native import partition, products, spectrum
from tests.on_jax import jax_shardings
from tests.programs import python
from tests.selected import COMPILED, OWN, of_each_class, slow

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("case", of_each_class(*COMPILED, "corner-ill-conditioned-at-the-pixel"))
def test_forward_mode_pairs_with_the_cores_gradients(case: Any) -> None:
    """<bar, J dots> = <J^T bar, dots> of images and log-determinants, in both directions."""
    x, bar, dot = case.images(3)
    host, ones = case.conv(), np.ones(case.batch_shape)
    conv, rng = host.asarrays(jnp.asarray(x)), case.rng()
    dots = {n: rng.standard_normal(a.shape) for n, a in host.parameters().items()}

    def both_ways(parameters: dict[str, Any], x: Any) -> Any:
        moved = conv.replace(**parameters)
        return moved.forward_and_log_det(x), moved.inverse_and_log_det(x)

    primals = conv.parameters(), jnp.asarray(x)
    tangents = jax.jit(lambda *dots: jax.jvp(both_ways, primals, dots)[1])(dots, dot)
    lever = max(1.0, host.condition(case.spatial_shape)) ** 2
    ways = host.forward_vjp, host.inverse_vjp
    for pull_back, (y_dot, log_det_dot) in zip(ways, tangents, strict=True):
        gradients, x_bar = pull_back(x, bar, ones)
        terms = [x_bar * dot, *(gradients[n] * dots[n] for n in dots)]
        size = sum(np.abs(term).sum() for term in terms)
        gap = (y_dot * bar).sum() + log_det_dot.sum() - sum(term.sum() for term in terms)
        assert abs(gap) <= 1e-12 * lever * size


@pytest.mark.parametrize("name", ["periodic-1d", *map(slow, ("corner-2d+-", "symmetric-1d"))])
def test_second_derivatives_agree_with_finite_differences(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    y = jnp.asarray(case.images(1)[0])
    conv = case.conv().asarrays(y)

    @jax.jit  # type: ignore[untyped-decorator]
    def loss(kernel: Any, y: Any) -> Any:
        return jnp.tanh(conv.replace(kernel=kernel).inverse(y)).sum()

    given = conv.parameters()["kernel"], y
    check_grads(loss, given, order=2, modes=("rev",), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cls", [ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1])
def test_products_on_images_are_asked_for_at_full_precision(cls: Any) -> None:
    """Else an accelerator computes them in TensorFloat-32 or bfloat16."""
    conv = cls.init(4, rng=np.random.default_rng(0), like=jnp.zeros((), "float32"))
    x = jax.ShapeDtypeStruct((2, 4, 6, 6), "float32")
    for function in (conv.forward, conv.inverse):
        text = jax.export.export(jax.jit(function), platforms=["cuda"])(x).mlir_module()
        products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
        assert products
        assert all("HIGHEST" in product for product in products), products


def test_the_program_does_not_grow_with_the_image() -> None:
    conv = ic.EmergingConv.init(3, kernel_size=5, rng=np.random.default_rng(0), like=jnp.zeros(()))
    sizes = []
    for n in (8, 128):
        text = jax.jit(conv.inverse).lower(jax.ShapeDtypeStruct((2, 3, n, n), float)).as_text()
        sizes.append(len(text.splitlines()))
    assert sizes[0] == sizes[1] < 2000


def test_the_gradient_of_an_inverse_stores_one_image() -> None:
    """What the forward pass of x = K^-1 y keeps is x and things of the kernel's size."""
    x = jnp.zeros((16, 3, 32, 32))
    conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0), like=x)

    def kept(y: Any, kernel: Any) -> Any:
        return jax.vjp(lambda k, y: conv.replace(kernel=k).inverse(y), kernel, y)[1]

    residuals = jax.tree.leaves(jax.eval_shape(kept, x, conv.kernel))
    images = [r for r in residuals if np.prod(r.shape) >= x.size]
    assert len(images) == 1
    assert sum(int(np.prod(r.shape)) for r in residuals) < 1.05 * x.size


@pytest.mark.slow
def test_solves_and_filters_without_a_compiler() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 2, 2)))
    conv = ic.AutoregressiveConv.init(2, rng=np.random.default_rng(0), like=x)
    calls: tuple[Any, ...] = (
        conv.inverse,
        lambda x: ic.lfilter(jnp.asarray([1.0, 0.5]), jnp.asarray([1.0, 0.2]), x),
    )
    for call in calls:
        wanted = call(x)
        with jax.disable_jit():
            np.testing.assert_allclose(call(x), wanted, rtol=1e-12)
    assert not conv.inverse(jnp.full(x.shape, 1.0)).weak_type  # nor is it in compiled code


@pytest.mark.parametrize("axes", [(1, None, 2), (None, 0, None)])
def test_filters_are_mapped(axes: tuple[int | None, ...]) -> None:
    given = [[1.0, 0.5, 0.2], [1.0, 0.2], np.random.default_rng(0).standard_normal((2, 5))]
    factors = np.asarray([1.0, -1.5, 2.0, 0.5])
    stacks = [
        np.asarray(v) if axis is None else np.stack([f * np.asarray(v) for f in factors], axis)
        for v, axis in zip(given, axes, strict=True)
    ]
    found = jax.vmap(ic.lfilter, axes)(*map(jnp.asarray, stacks))
    for n, one in enumerate(found):
        pairs = zip(stacks, axes, strict=True)
        each: Any = [v if axis is None else np.take(v, n, axis) for v, axis in pairs]
        wanted: Any = scipy.signal.lfilter(*each)
        np.testing.assert_allclose(one, wanted, rtol=1e-12)


def test_taps_see_zeros_outside_unless_told() -> None:
    x, bar = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 2, 3, 4)))
    taps, below = jnp.asarray([[[1.0, 2.0], [3.0, 4.0]]]), ((1, 0),)
    shifted = np.pad(x[:, :, 1:], [(0, 0), (0, 0), (0, 1), (0, 0)])
    stencil, plain = Stencil(below, taps), Stencil(below, np.asarray(taps))
    for found in (products.correlate(stencil, x), primitives.correlate(plain, np.asarray(x))):
        np.testing.assert_allclose(found, np.einsum("oc,bchw->bohw", taps[0], shifted), rtol=1e-12)
    around = Stencil(((1, 0, 0, 0),), taps)  # along more axes than XLA's convolutions have
    found = products.correlate(around, x[..., None, None], wrap=True)[..., 0, 0]
    rolled = np.einsum("oc,bchw->bohw", taps[0], np.roll(x, -1, 2))
    np.testing.assert_allclose(found, rolled, rtol=1e-12)
    found = products.correlate_kernel_vjp(x, bar, below)[0]
    np.testing.assert_allclose(found, np.einsum("bohw,bchw->oc", bar, shifted), rtol=1e-12)


def test_an_inverse_that_loses_digits_does_not_come_to_the_host() -> None:
    for far in (1.0, 1e4):
        matrix = jnp.asarray([[[1, far], [0, 1]]], complex)
        solver = spectrum.spectral_solver(matrix, fourier(1), (1,))
        assert (solver.as_numpy() is None) == (far > 1)


def test_the_hosts_copies_can_be_edited_and_are_in_single_precision_if_need_be() -> None:
    for dtype, there in {"float64": "float64", "bfloat16": "float32", "int16": "int16"}.items():
        copied = to_numpy(jnp.arange(3).astype(dtype))
        copied += 1
        assert (copied.tolist(), copied.dtype) == ([1, 2, 3], there)


def test_half_types_are_rounded_at_the_end() -> None:
    conv = ic.Chain([ic.ActNorm(np.full(1, 0.1), np.full(1, shift)) for shift in (1e3, -1e3)])
    conv = conv.asarrays(jnp.zeros(0, "bfloat16"))
    x = jnp.linspace(-1, 1, 9, dtype="bfloat16")[None, None]
    wanted = conv.asarrays(np.zeros(0, "float32")).forward(np.asarray(x, "float32"))
    assert (conv.forward(x) == wanted.astype(x.dtype)).all()


@pytest.mark.parametrize(("mask", "size"), [("raster", 2), ("corner", 1)])
def test_an_inverse_is_exported_for_any_batch(mask: str, size: int) -> None:
    conv = ic.AutoregressiveConv.init(3, size, mask=mask, rng=np.random.default_rng(0))
    if size == 1:  # with a matrix at the pixel whose inverse is of no use
        conv = conv.replace(kernel=conv.kernel + 30 * np.tri(3, k=-1)[..., None, None])
    conv = conv.asarrays(jnp.zeros(0))
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 3, 4, 5), jnp.zeros(0).dtype)
    exported = jax.export.export(jax.jit(conv.inverse))(shape)
    for count in (1, 3):
        y = jnp.asarray(np.random.default_rng(count).standard_normal((count, 3, 4, 5)))
        np.testing.assert_allclose(exported.call(y), conv.inverse(y), rtol=1e-12)


@pytest.mark.parametrize("mask", ["corner", "raster"])
@pytest.mark.parametrize("x64", [False, True])
def test_nothing_is_promoted(x64: bool, mask: str) -> None:
    conv = ic.AutoregressiveConv.init(2, 3, mask=mask, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((2, 2, 5, 6)).astype(np.float32)
    strict = (jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"))
    with jax.enable_x64(x64), strict[0], strict[1]:
        x = jax.jit(lambda conv, y: conv.inverse(y))(conv.asarrays(y), jnp.asarray(y))
    assert x.dtype == np.float32
    np.testing.assert_allclose(conv.forward(np.asarray(x, float)), y, rtol=0, atol=1e-5)


SOS = scipy.signal.butter(3, 0.2, output="sos")
FUNCTIONS: dict[str, tuple[Any, Any, Any]] = {
    "filtfilt": (ic.filtfilt, scipy.signal.filtfilt, scipy.signal.butter(3, 0.2)),
    "sosfiltfilt": (ic.sosfiltfilt, scipy.signal.sosfiltfilt, (SOS,)),
    "spline_filter": (ic.spline_filter, partial(scipy.ndimage.spline_filter, mode="mirror"), ()),
    "map_coordinates": (
        lambda places, x: ic.map_coordinates(x, places),
        lambda places, x: scipy.ndimage.map_coordinates(x, places, mode="mirror"),
        ([[0.3, 1.7], [4.2, 30.6]],),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_known_numbers_promote_no_ranks(name: str) -> None:
    run, reference, known = FUNCTIONS[name]
    x, numbers = np.random.default_rng(1).standard_normal((3, 40)), tuple(map(jnp.asarray, known))
    with jax.numpy_rank_promotion("raise"):
        found = jax.jit(lambda x: run(*numbers, x))(jnp.asarray(x))
    np.testing.assert_allclose(found, reference(*known, x), rtol=1e-9, atol=1e-12)


# the last call of every function, and calls with arrays that are looked at unless they are traced
TRACED = [call for call in CALLS if not call.looks]
CALLED = {call.name.partition("-")[0]: call for call in TRACED} | {
    call.name: call for call in TRACED if call.name.endswith(("no-poles", "actnorm-each"))
}


@pytest.mark.parametrize("name", CALLED)
def test_each_array_of_a_function_is_closed_over_or_traced_alone(name: str) -> None:
    """All are JAX's own memory, which NumPy may only read."""
    call: Any = CALLED[name]
    arrays, wanted = jax.tree.map(jnp.asarray, {**call.arrays}), call.function(**call.arrays)

    def check(found: Any) -> None:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), found, wanted)

    check(call.function(**jax.tree.map(np.asarray, arrays)))
    for own, array in arrays.items():
        rest = {n: a for n, a in arrays.items() if n != own}
        for held, traced in ((rest, {own: array}), ({own: array}, rest)):
            run = partial(call.function, **held)
            check(jax.jit(lambda traced: run(**traced))(traced))  # noqa: B023


def test_a_kernel_that_is_closed_over_is_looked_at() -> None:
    kernel, x = np.asarray([[[1.0, 4.0, 1.0]]]), np.ones((1, 8))
    conv = ic.PeriodicConv(jnp.asarray(kernel))
    found = jax.jit(lambda x: conv.funm(jnp.sqrt, x))(x)
    np.testing.assert_allclose(found, ic.PeriodicConv(kernel).funm(np.sqrt, x), rtol=1e-12)
    uneven = conv.replace(kernel=conv.kernel.at[..., 0].set(2.0))
    with pytest.raises(ValueError, match="expected an even one for funm"):
        jax.jit(lambda x: uneven.funm(jnp.sqrt, x))(x)


@pytest.mark.parametrize("cls", [ic.PeriodicConv, *map(slow, (ic.Conv1x1, ic.ExponentialConv))])
def test_gradients_outside_jit_pass_jaxs_own_checks(cls: Any) -> None:
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.standard_normal((1, 2, 3, 4)))
    stack = jax.tree.map(lambda array: array[None], cls.init(2, rng=rng, like=y))

    def loss(conv: Any) -> Any:
        x, log_det = conv.inverse_and_log_det(y)
        return (x * x).sum() + log_det.sum()

    @jax.vmap  # type: ignore[untyped-decorator]
    def gradients(conv: Any) -> Any:
        return jax.grad(loss)(conv), conv.forward_vjp(y, y, y[:, 0, 0, 0])

    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        found = gradients(stack)
    jax.tree.map(np.testing.assert_array_equal, found, gradients(stack))


def test_an_exponential_has_derivatives_outside_of_vmap() -> None:
    """They are those inside of it: of images, of parameters, of both, and of a derivative."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 1, 2, 3)))
    conv = ic.ExponentialConv.init(2, ndim=1, rng=rng, like=x)
    kernels = jnp.stack([conv.kernel, conv.kernel[::-1]])

    def inverse(kernel: Any, x: Any) -> Any:
        return jnp.tanh(conv.replace(kernel=kernel).inverse(x))

    def loss(kernel: Any, x: Any, axes: Any = None) -> Any:
        return (jax.vmap(inverse, axes) if axes else inverse)(kernel, x).sum()

    for axes in ((None, 0), (0, None), (0, 0)):
        given = [a[0] if axis is None else a for a, axis in zip((kernels, x), axes, strict=True)]
        each = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), axes))(*given)
        wanted = [a.sum(0) if axis is None else a for a, axis in zip(each, axes, strict=True)]
        outside = partial(jax.grad(loss, (0, 1)), axes=axes)
        for one, other in zip(jax.jit(outside)(*given), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    reverse, mixed = (jax.jit(of(jax.jacrev(inverse))) for of in (jax.jacrev, jax.jacfwd))
    one, other = reverse(kernels[0], x[0]), mixed(kernels[0], x[0])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_programs_are_kept_for_each_precision() -> None:
    x = jnp.ones((2, 3, 5))
    with jax.enable_x64(False):
        partition.whole(x)
    assert jax.eval_shape(partition.whole, x).dtype == x.dtype


FOUR_DEVICES: dict[str, Any] = {"JAX_PLATFORMS": "cpu"}
FOUR_DEVICES["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
FOUR_DEVICES["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # compiles sooner
ALONE = [*(cls.__name__ for cls in OWN if hasattr(cls, "init")), "dilated"]


@pytest.mark.parametrize("more", [pytest.param([], id="auto"), slow(["explicit"], id="explicit")])
@pytest.mark.parametrize("name", ["some", *map(slow, ALONE)])
def test_images_split_along_any_axes_give_the_same(name: str, more: list[str]) -> None:
    assert python(jax_shardings.__file__, name, *more, **FOUR_DEVICES).stdout == "the same\n"


SPLITS = [
    (ic.AutoregressiveConv, "forward", ("a", None, "b", None)),
    (ic.PeriodicConv, "inverse", ("a", None, "b", None)),
    (ic.QRConv1x1, "inverse", ("a", "b", None, None)),
]


@pytest.mark.parametrize(("cls", "way", "axes"), SPLITS)
def test_images_on_an_explicit_mesh_stay_as_they_are_split(cls: Any, way: str, axes: Any) -> None:
    """By the types of the program; `jax_shardings` has several devices."""
    mesh = jax.make_mesh((1, 1), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    split = NamedSharding(mesh, PartitionSpec(*axes))
    rng = np.random.default_rng(0)
    x, weights = jnp.asarray(rng.standard_normal((2, 2, 3, 4, 5)))
    conv = cls.init(3, rng=rng, like=x)

    @jax.jit  # type: ignore[untyped-decorator]
    def run(conv: Any, x: Any) -> Any:
        y, pull_back = jax.vjp(lambda conv, x: getattr(conv, way)(x), conv, x)
        return y, pull_back(weights + 0 * y)

    found, wanted = run(conv, jax.device_put(x, split)), run(conv, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), found, wanted)
    y, (_, x_bar) = found
    assert y.sharding.spec == x_bar.sharding.spec == PartitionSpec(*axes)


def test_an_exported_solve_tells_xla_which_axes_are_whole() -> None:
    """XLA may split the others, the batch, as it likes: no handler of ours is in the program."""
    mesh, rng = jax.make_mesh((1,), ("a",), axis_types=(AxisType.Auto,)), np.random.default_rng(0)
    split = NamedSharding(mesh, PartitionSpec("a"))
    y = jax.ShapeDtypeStruct((2, 3, 4, 5), float, sharding=split)
    wanted: dict[Any, set[tuple[str, str]]] = {  # images, and what runs along the channels
        ic.AutoregressiveConv: {("{?}, {}, {}, {}", "2x3x4x5"), ("{}, {?}, {?}", "3x4x2")},
        ic.PeriodicConv: {("{?}, {?}, {}, {}", "2x3x4x5"), ("{}, {}, {?}", "12x3x2")},
    }
    for cls, whole in wanted.items():
        conv = cls.init(3, rng=rng, like=jnp.zeros(()))
        text = jax.export.export(jax.jit(conv.inverse))(y).mlir_module()
        found = re.findall(r"constraint %\w+ <@mesh, \[(.*)\]> : tensor<([0-9x]+)x", text)
        assert whole <= set(found)


@pytest.mark.parametrize("case", of_each_class(*COMPILED, "periodic-3d"))
def test_every_operator_is_lowered_for_cuda(case: Any) -> None:
    """Values, log-determinants and gradients of both directions, in one program.

    It calls nothing but CUDA's libraries.
    """
    x = jnp.asarray(case.images(1)[0], "float32")
    conv = case.conv().asarrays(x)
    text = jax.export.export(jax.jit(jax_shardings.differentiated), platforms=["cuda"])(
        [conv], x, x
    )
    called = set(re.findall(r"custom_call @(\w+)", text.mlir_module()))
    assert sorted(name for name in called if not name.startswith("cu")) == []


@pytest.mark.slow
def test_the_core_imports_the_adapter_when_it_sees_a_jax_array() -> None:
    program = (
        "import sys, invconv, numpy as np, jax\n"
        "x = jax.numpy.ones((1, 2, 4, 4))\n"
        "conv = invconv.EmergingConv.init(2, rng=np.random.default_rng(0), like=x)\n"
        "conv.forward(x)\n"
        "print(len(jax.tree.leaves(conv)), 'invconv_jax' in sys.modules)\n"
    )
    assert python("-c", program, JAX_PLATFORMS="cpu").stdout == "2 True\n"


def test_images_that_jit_closes_over_may_meet_traced_kernels() -> None:
    """Prepared matrices are computed once, outside of the traced code."""
    rng = np.random.default_rng(2)
    kernel, y = rng.standard_normal((2, 2, 3)), jnp.asarray(rng.standard_normal((2, 2, 8)))
    expected = ic.PeriodicConv(kernel).least_squares(np.asarray(y), 0.1)
    solve = jax.jit(lambda kernel: ic.PeriodicConv(kernel).least_squares(y, 0.1))
    np.testing.assert_allclose(solve(jnp.asarray(kernel)), expected, atol=1e-12)
    prepared = ic.PeriodicConv(jnp.asarray(kernel)).prepare((8,))
    for conv, factors in ((prepared.conv, True), (prepared, False)):
        traced = jax.make_jaxpr(lambda y, conv=conv: conv.least_squares(y, 0.1))(y)
        assert ("svd" in str(traced)) == factors
    np.testing.assert_allclose(prepared.least_squares(y, 0.1), expected, atol=1e-12)
