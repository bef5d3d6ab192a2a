"""Singular operators, and numbers at the ends of a dtype's range: right, or said to be wrong."""

import contextlib
import math
from functools import partial
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import namespace, to_numpy
from invconv.extend import Transposed
from invconv.kernels.primitives import log_abs_det, triangular_solve
from invconv_conformance.cases.table import CASES, Case, edited
from invconv_torch import InvertibleModule
from tests.selected import CARRY

RNG = np.random.default_rng(0)
LIKE: dict[str, Any] = {name: carry(np.zeros(())) for name, carry in CARRY.items()}
SINGULAR = [case for case in CASES if case.singular]


@pytest.mark.parametrize("case", SINGULAR, ids=lambda case: case.name)
def test_every_way_to_an_inverse_says_so(case: Case) -> None:
    """The law "singular" asks the others, in every library."""
    conv, grid, images = case.conv(), case.spatial_shape, case.images(1)[0]
    size = " x ".join(map(str, grid))
    message = f"exactly singular on a grid of {size} .*:"
    for check in (True, False):
        with pytest.raises(ic.SingularConvError, match=message):
            conv.prepare(grid, check=check)
    with pytest.raises(ic.SingularConvError, match=message):
        ic.Inverse(conv).forward(images)
    with pytest.raises(ic.SingularConvError, match=message):
        ic.Inverse(conv).inverse_vjp(images, images, np.ones(2), check=False)
    assert conv.condition(grid) == math.inf


@pytest.mark.parametrize("name", ["permutation", "sign"])
def test_a_zero_put_into_the_constants_of_plu_is_singular(name: str) -> None:
    """No edit in place of real numbers is validated, nor a value inside of jit."""
    x, host = np.ones((2, 3, 4, 6)), ic.PLUConv1x1.init(3, rng=RNG)
    regular, layer = host.asarrays(LIKE["jax"]), InvertibleModule(host).eval()
    layer.requires_grad_(False)
    layer.inverse(torch.from_numpy(x))  # and remembered
    for array in (getattr(host, name), getattr(layer, name)):
        array[:2] = 0
    message = r"log_scale or sign|permutation has an index twice"
    refused: Any = pytest.raises(ic.SingularConvError, match=message)
    assert float(host.log_det((4, 6))) == -math.inf
    with refused:
        host.inverse(x)
    if name == "permutation":  # whose integers a layer looks at after each edit
        refused = pytest.raises(ValueError, match="permutation: expected each of 0 to 2 once")
    else:
        assert float(layer.operator().log_det((4, 6))) == -math.inf
    for inverse in (lambda y: layer.operator().inverse(y), layer.inverse):
        with refused:
            inverse(torch.from_numpy(x))
    broken = getattr(regular, name).at[:2].set(0)
    both = jax.jit(lambda a, y: regular.replace(**{name: a}).inverse_and_log_det(y))
    (found, log_det), slope = jax.jvp(partial(both, broken), (jnp.asarray(x),), (jnp.asarray(x),))
    assert np.isnan([found, slope[0]]).all()
    assert (log_det == math.inf).all()


def test_a_number_that_is_zero_only_here_is_told() -> None:
    """Below the range of float32, and subnormal in JAX: XLA takes such numbers for zero."""
    small = ic.QRConv1x1(np.ones((1, 2)), np.zeros((2, 2)), np.asarray([1.0, 1e-38]))
    tiny = ic.ActNorm(np.asarray([0.0, -120.0], np.float32), None)
    for conv in (tiny, small.asarrays(jnp.zeros((), dtype=jnp.float32))):
        assert float(conv.log_det((4,))) == -math.inf
        with pytest.raises(ic.SingularConvError, match=r"-inf, and -\d+\.?\d* in NumPy's float64"):
            conv.prepare((4,))
    box = ic.PeriodicConv(np.ones((1, 1, 3), np.float32))  # of which float64 has the rounding alone
    with pytest.raises(ic.SingularConvError, match=r"\(log_det is -inf\)"):
        box.prepare((6,))


def test_a_singular_step_is_named() -> None:
    """Also of a chain that is no map, a singular step and the inverse of one, -inf + inf."""
    zero = ic.Conv1x1(np.zeros((2, 2)))
    for steps in ([zero, ic.Inverse(zero)], [ic.Inverse(zero), zero]):
        chain, x = ic.Chain(steps), np.ones((1, 2, 3))
        with np.errstate(invalid="ignore"):
            assert math.isnan(float(chain.log_det((3,))))
        for call in (chain.forward, chain.inverse, chain.inverse_and_log_det):
            with pytest.raises(ic.SingularConvError, match="Conv1x1 is exactly singular"):
                call(x)
    assert "exactly singular" in ic.diagnose(ic.Chain([ic.Inverse(zero)]), (3,)).trouble
    scales = ic.Chain([ic.ActNorm(np.zeros(2), None)] * 2)  # which are no matrix
    assert scales.forward(np.asarray([[[math.inf], [1.0]]]))[0, 1] == 1
    steps = [ic.Conv1x1(np.eye(2)), ic.PeriodicConv(np.zeros((2, 2, 3)))]
    with pytest.raises(ic.SingularConvError, match="PeriodicConv is exactly singular"):
        Transposed(ic.Chain(steps)).inverse(np.ones((1, 2, 4)))


KINDS = ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv, ic.PLUConv1x1


@pytest.mark.filterwarnings("ignore")  # of NumPy, of what overflows, and of what is lost
@pytest.mark.parametrize("number", [np.inf, np.nan, 1e300])
@pytest.mark.parametrize("library", LIKE)
@pytest.mark.parametrize("cls", KINDS)
def test_one_bad_number_is_no_error(cls: Any, library: str, number: float, capfd: Any) -> None:
    """Elimination may take the pivots beside a large number for zeros, and raise.

    JAX raises nothing, and array-api-strict is NumPy with checks: some places will do.
    """
    conv = cls.init(2, rng=np.random.default_rng(0))
    y = LIKE[library] + namespace(LIKE[library]).ones((1, 2, 3, 4), dtype=LIKE[library].dtype)
    for name, array in conv.parameters().items():
        for place in [*np.ndindex(array.shape)][:: 1 if library in ("numpy", "torch") else 7]:
            broken = edited(conv, name, place, number).asarrays(LIKE[library])
            for use in (broken.inverse, lambda y, conv=broken: conv.inverse_vjp(y, y)):
                with contextlib.suppress(ic.SingularConvError):
                    use(y)
    assert capfd.readouterr().err == ""  # nor a message of LAPACK's


@pytest.mark.filterwarnings("ignore")
def test_what_is_neither_singular_nor_finite_has_no_inverse() -> None:
    """A zero beside an inf, of which neither the log-determinant nor LAPACK tells which it is."""
    uneven = ic.QRConv1x1(np.ones((1, 2)), np.zeros((2, 2)), np.asarray([0.0, np.inf]))
    for conv in (uneven, ic.PeriodicConv(np.asarray([[[1.0, np.inf, 0.0]]]))):
        y = np.ones((1, conv.channels, 4))
        assert math.isnan(conv.log_det((4,)))
        assert not np.isfinite(conv.inverse(y)).all()


@pytest.mark.parametrize("carry", [np.asarray, strict.asarray])
def test_matrices_with_an_inf_raise_nothing_and_are_not_solved(carry: Any) -> None:
    below = carry(np.asarray([[1.0, 0.0], [np.inf, 1.0]]))
    solved = triangular_solve.agnostic(below, carry(np.ones((2, 1))), lower=True)
    assert np.isnan(np.asarray(solved)).all()
    found = log_abs_det.agnostic(carry(np.stack([np.diag([np.inf, 1.0]), np.zeros((2, 2))])))
    assert np.asarray(found).tolist() == [math.inf, -math.inf]
    assert math.isnan(log_abs_det.agnostic(below))


SMALL = {
    "1x1": ic.Conv1x1(np.ones((2, 2))),
    "qr": ic.QRConv1x1(np.ones((1, 2)), np.eye(2), np.asarray([0.0, 1.0])),
    "corner": ic.AutoregressiveConv(np.zeros((2, 2, 2))),
    "periodic": ic.PeriodicConv(np.ones((2, 2, 3))),
    "symmetric": ic.SymmetricConv(np.ones((2, 2, 2))),
    "circulant": ic.CirculantConv1x1(np.ones(2), np.ones(2), np.ones(2)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_singular_operator_that_nobody_can_look_at_gives_no_finite_value(name: str) -> None:
    """Mapped by JAX and torch: not finite, and nothing is raised; the laws have jit and devices."""
    host = SMALL[name]
    y = np.ones((3, 1, 2, 5))
    parameters = {n: np.stack([p] * 3) for n, p in host.parameters().items()}
    in_jax = (lambda run: jax.jit(jax.vmap(run)), jnp.asarray)
    for vmap, convert in (in_jax, (torch.func.vmap, torch.as_tensor)):
        there = host.asarrays(convert(y))
        solve: Any = lambda values, y, conv=there: conv.replace(**values).inverse(y)  # noqa: E731
        got = vmap(solve)({n: convert(p) for n, p in parameters.items()}, convert(y))
        assert not np.isfinite(to_numpy(got)).any()


@pytest.mark.parametrize("name", SMALL)
def test_a_jitted_gradient_through_a_singular_operator_is_no_number(name: str) -> None:
    """Of a sum, whose own gradient knows nothing of it; but for entries that are not used."""
    y = jnp.ones((1, 2, 5))
    conv = SMALL[name].asarrays(y)

    def total(parameters: dict[str, Any], y: Any) -> Any:
        return conv.replace(**parameters).inverse(y).sum()

    def pulled(parameters: dict[str, Any], y: Any) -> Any:
        return conv.replace(**parameters).inverse_vjp(y, y)

    for run in (jax.grad(total, argnums=(0, 1)), pulled):
        gradients, y_bar = jax.jit(run)(conv.parameters(), y)
        assert not np.isfinite(np.asarray(y_bar)).any()
        for gradient in map(np.asarray, gradients.values()):
            assert not np.isfinite(gradient).all()
            assert (gradient[np.isfinite(gradient)] == 0).all()


def single(library: str, values: Any) -> Any:
    return CARRY[library](np.asarray(values, np.float32))


@pytest.mark.parametrize("library", [*CARRY, "jax, jitted"])
def test_a_periodic_inverse_whose_sums_over_the_grid_leave_the_range(library: str) -> None:
    """1e35 at every one of 4,096 pixels; a sample beside it keeps its every digit."""
    rng, make = np.random.default_rng(0), partial(single, library.partition(",")[0])
    conv = ic.PeriodicConv.init(3, rng=rng)
    conv = conv.replace(kernel=conv.kernel / np.linalg.norm(conv.kernel))
    like = conv.asarrays(make(np.zeros(())))
    invert = jax.jit(like.inverse) if "jitted" in library else like.inverse
    y = 1 + 0.1 * rng.standard_normal((3, 3, 64, 64))
    alone = to_numpy(invert(make(y)))
    scale = np.reshape([1, 2.0**116, -(2.0**116)], (3, 1, 1, 1)).astype("float32")  # 8e34
    found = to_numpy(invert(make(y * scale))) / scale
    assert np.array_equal(found[0], alone[0])
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5 * alone.max())


@pytest.mark.parametrize("library", CARRY)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_log_determinant_of_reflectors_that_are_no_numbers(library: str, bad: float) -> None:
    conv = edited(ic.QRConv1x1.init(3, rng=np.random.default_rng(0)), "reflectors", (1, 2), bad)
    broken = conv.asarrays(single(library, np.zeros(())))
    with np.errstate(invalid="ignore"):
        y, log_det = broken.forward_and_log_det(single(library, np.ones((2, 3, 4))))
    assert np.isnan(to_numpy(y)).all()
    assert np.isnan(to_numpy(log_det)).all()


@pytest.mark.parametrize("library", CARRY)
@pytest.mark.parametrize("powers", [[[100], [-100], [3]], 100, -100])
def test_no_square_of_a_factor_overflows(powers: Any, library: str) -> None:
    """Reflectors of any length, or a circulant of any size, which is transformed: the same bits."""
    rng, sizes = np.random.default_rng(0), np.exp2(powers).astype("float32")
    x, one = (single(library, rng.standard_normal(shape)) for shape in ((2, 3, 4), 2))
    cls, name = (ic.QRConv1x1, "reflectors") if sizes.ndim else (ic.CirculantConv1x1, "circulant")
    conv, results, bar = cls.init(3, rng=rng), [], x if sizes.ndim else 0 * x
    for size in (sizes**0, sizes):
        there = conv.replace(**{name: conv.parameters()[name] * size}).asarrays(x)
        gain, gradient = 1 if sizes.ndim else size, there.forward_vjp(x, bar, one)[0][name]
        y, back, slope = map(to_numpy, (there.forward(x), there.inverse(x), gradient))
        results.append((y / gain, back * gain, slope * size))
    for plain, sized in zip(*results, strict=True):
        np.testing.assert_array_equal(sized, plain)


def scaled(conv: ic.InvertibleConv, size: float) -> ic.InvertibleConv:
    factors = {"log_scale": 1.0} | dict.fromkeys(("weight", "kernel", "scale", "upper"), size)
    moved = {n: factors[n] * a for n, a in conv.parameters().items() if n in factors}
    if "log_scale" in moved:
        moved["log_scale"] += np.log(size)
    return conv.replace(**moved)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("cls", [*KINDS[::2], KINDS[3], ic.ActNorm, ic.Conv1x1, ic.QRConv1x1])
def test_weights_below_the_smallest_normal_number_are_told(cls: Any, library: str) -> None:
    """They have lost digits, and so has what is solved with them: there are seven below 1e-44."""
    make, rng = partial(single, library), np.random.default_rng(0)
    conv = scaled(cls.init(3, **({} if cls is ic.ActNorm else {"rng": rng})), 1e-44)
    like = conv.asarrays(make(np.zeros(())))
    y = like.forward(make(rng.standard_normal((1, 3, 4, 5))))
    with pytest.warns(ic.IllConditionedWarning), np.errstate(all="ignore"):
        like.inverse(y)


def test_a_gradient_by_frequencies_overflows_only_where_its_sums_do() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 24, 27)).astype("float32")
    conv, large = ic.PeriodicConv(x[:2]), x * np.float32(2.0**58)
    least = conv.forward_vjp(x, x)[0]["kernel"]
    assert np.array_equal(conv.forward_vjp(large, large)[0]["kernel"], least * 2.0**116)


@pytest.mark.parametrize("bias", [None, np.zeros(3)])
def test_an_actnorm_starts_from_images_of_any_size(bias: Any) -> None:
    norm: Any = ic.ActNorm(np.zeros(3), bias)
    x = RNG.standard_normal((2, 3, 5))
    for size in (2.0**-700, 2.0**700):
        found, wanted = norm.initialize(size * x), norm.initialize(x)
        np.testing.assert_allclose(found.log_scale + np.log(size), wanted.log_scale, atol=1e-10)
        assert found.bias is None if bias is None else np.array_equal(found.bias, wanted.bias)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_squeezed_image_is_a_copy(library: str) -> None:
    x = CARRY[library](np.ones((1, 4, 1, 1)))  # whose numbers stay in their order
    for y in (ic.unsqueeze(x), ic.squeeze(ic.unsqueeze(x))):
        y[...] = 2.0
        assert (x == 1).all()
