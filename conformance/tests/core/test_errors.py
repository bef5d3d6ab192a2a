"""Wrong and odd input: each error is of its kind, says what was expected, what came and what to do.

What every operator refuses alike (grids, channels, dtypes, devices, cotangents) is in the laws
"errors", "no_promotion" and "no_transfer"; here is what single classes and functions refuse.
"""

import re
import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax
import invconv_torch as it
from invconv.extend import ArrayOps, register_backend
from invconv.kernels.cpu import threads
from invconv.operators.base.fields import own_operators
from invconv_conformance.cases.case import Case
from tests.selected import ONE_OF_EACH, cases_named

RNG = np.random.default_rng(0)
CORNER: Any = ic.AutoregressiveConv.init(3, rng=RNG)
PERIODIC: Any = ic.PeriodicConv.init(3, rng=RNG)
ONE: Any = ic.Conv1x1.init(3, rng=RNG)
X: Any = RNG.standard_normal((2, 3, 4, 5))
BLUR: Any = ic.from_psf(np.outer([1, 4, 1], [1, 4, 1]) / 36)
KERNEL: Any = CORNER.kernel
EYE: Any = np.eye(3)
ONES: Any = np.ones(3)
LAYER, LINEAR, IMAGES = it.ActNorm(3), torch.nn.Linear(3, 3), torch.zeros(1, 3, 2, 2)
KEY = jax.random.key(0)
MASKED: Any = np.ma.masked_invalid(np.full((1, 3, 4, 4), np.nan))
SPARSE: Any = torch.ones(2, 3, 4, 4).to_sparse()
NESTED: Any = torch.nested.nested_tensor([torch.ones(3, 4)], layout=torch.jagged)
RECORDS: Any = np.rec.array(np.zeros((2, 3, 4), [("a", "f8")]))
SIGNAL: Any = ic.AutoregressiveConv.init(3, ndim=1)
SMALL: Any = np.ones(3, "float32")
RASTER: Any = {"mask": "raster"}
TURNED: Any = RASTER | {"direction": (1, -1)}
GAP: Any = EYE * [[1], [0], [1]]
PAIR: Any = np.ones((2, 2))


def plu(**changes: Any) -> ic.PLUConv1x1:
    fields: dict[str, Any] = {"permutation": np.arange(3), "lower": EYE, "upper": EYE}
    fields |= {"sign": ONES, "log_scale": np.zeros(3)}
    return ic.PLUConv1x1(**(fields | changes))


def corner(*kernel: Any, **settings: Any) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv(*(kernel or (KERNEL,)), **settings)


def one(matrix: Any, **settings: Any) -> ic.Conv1x1:
    return ic.Conv1x1(matrix, **settings)


VALUES = {
    r"x: expected shape \(\*batch, 3, \*spatial\) .* got \(4, 5\)": "CORNER.forward(X[0, 0])",
    r"x: expected shape \(batch, 3": "ONE.forward(X[0, :, 0, 0])",
    "precision: expected 'float64', got 'auto'": "CORNER.prepare((4, 5), precision='auto')",
    "norm: expected 1 or inf, or None, got 2": "CORNER.condition((4, 5), norm=2)",
    r"one pixel .* at most, got": "CORNER.log_det((2**70, 5))",
    "kernel_size: expected odd sizes, .* got 4": "ic.EmergingConv.init(3, 4)",
    r"kernel_size: expected odd sizes, .*got 4": "ic.SymmetricConv.init(2, 4)",
    r"kernel_size: expected at least 1": "ic.PeriodicConv.init(2, kernel_size=0)",
    r"dilation: .* axis, 2147483647 at most, got 92": "ic.PeriodicConv(KERNEL, dilation=2**63)",
    r"dilation: .* got 3": "ic.PeriodicConv(KERNEL, dilation=(1, 1, 1))",
    r"mask: expected 'corner' or 'raster', got array": "corner(mask=np.ones(2))",
    r"direction: a raster mask has one .* \(1, -1\)": "ic.AutoregressiveConv.init(2, **TURNED)",
    r"a raster mask needs an odd size along every axis but .*\(2, 2\)": "corner(**RASTER)",
    r"second: expected the direction opposite .* got \(1, 1\)": "ic.EmergingConv(CORNER, CORNER)",
    r"second: expected 2 spatial axes as first has, got 1": "ic.EmergingConv(CORNER, SIGNAL)",
    r"kernel: expected an odd size .*\(3, 2\)": "ic.ExponentialConv(np.zeros((1, 1, 3, 2)))",
    r"permutation: .* 2 once, got \[0, 0, 1\]": "plu(permutation=np.asarray([0, 0, 1]))",
    r"sign: expected a positive or negative number": "plu(sign=np.asarray([1.0, 0.0, 1.0]))",
    r"reflectors: expected no zero vector, got one in row 1": "ic.QRConv1x1(GAP, EYE, ONES)",
    r"reflectors: expected shape \(m, C\), got \(3,\)": "ic.OrthogonalConv1x1(ONES)",
    r"upper: expected shape \(C, C\) with C = 2 as reflectors has": "ic.QRConv1x1(PAIR, EYE, ONES)",
    r"channels: expected a positive": "ic.ActNorm.init(0)",
    r"steps: expected at least one operator": "ic.Chain([])",
    r"steps\[1\]: expected 3 channels as steps\[0\] .* 2": "ic.Chain([ONE, ic.Conv1x1.init(2)])",
    r"steps\[1\]: expected 2 spatial axes as steps\[0\] has, got 1": "ic.Chain([CORNER, SIGNAL])",
    "at least 1 thread, got 0": "ic.set_num_threads(0)",
    "at least 1 thread, got -3": "ic.set_num_threads(-3)",
    r"x: .* divisible by 2, got \(4, 5\)": "ic.squeeze(X, 2)",
    r"x: .* divisible by 4, got 3": "ic.unsqueeze(X)",
    r"factor: expected a power of 2 .* got 3": "ic.squeeze(X, 3, basis='haar')",
    "mixing: expected .* got 'lu'; .* imported": "it.EmergingConv2d(4, mixing='lu')",
    "mask: expected": "it.EmergingConv2d(4, mask='circle')",
    "kernel_size: expected odd": "it.EmergingConv2d(4, kernel_size=2)",
    "layers: expected modules .* got none": "it.ReversibleChain([])",
    r"x: expected shape \(batch, 3, \*spatial\)": "it.ReversibleChain([LAYER])(IMAGES[:, :2])",
    "parametrization: expected": "it.Conv1x1(4, 'lu')",
    "basis: expected 'pixels' or 'haar' or 'dct', got 'wavelet'": "ic.squeeze(X, basis='wavelet')",
}
TYPES = {
    r"y: .* got complex128; cast it": "CORNER.inverse(X + 0j)",
    r"got \w*float\d+;": "CORNER.inverse(X.astype(np.longdouble))",
    r"of numpy as kernel is, got .* torch; .*asarrays\(like=": "CORNER.forward(torch.as_tensor(X))",
    "spatial_shape: expected a tuple of integers .* got {4, 5}": "ONE.log_det({4, 5})",
    "bias: expected dtype float64 as kernel has, got float32": "ic.PeriodicConv(KERNEL, SMALL)",
    r"dilation: expected an integer, or 2 .* got 1\.0": "ic.PeriodicConv(KERNEL, dilation=1.0)",
    "direction: expected an integer": "corner(direction=1.0)",
    "steps: expected a list of operators, got None": "ic.Chain(None)",
    r"Chain takes one list of steps: Chain\(\[a, b\]\)": "ic.Chain(ONE, CORNER)",
    "first: expected an AutoregressiveConv, got PeriodicConv": "ic.EmergingConv(PERIODIC, CORNER)",
    "permutation: expected integers, got float64": "plu(permutation=ONES)",
    "permutation: expected an array of numpy as lower is": "plu(permutation=torch.arange(3))",
    "expected an integer, got float": "ic.set_num_threads(1.5)",
    "expected an integer, got a bool": "ic.set_num_threads(True)",
    "ndim: .* got True": "one(EYE, ndim=True)",
    "kernel_size: .* got True": "ic.PeriodicConv.init(2, (True, 3))",
    r"channels: .* got 2\.0": "ic.ActNorm.init(2.0)",
    r"steps\[1\]: expected an InvertibleConv, got ndarray": "ic.Chain([ONE, EYE])",
    "conv: expected an InvertibleConv": "ic.Inverse(EYE)",
    "kernel: expected an array .* got NoneType": "CORNER.replace(kernel=None)",
    "rng: expected a numpy.random.Generator .* got int": "ic.EmergingConv.init(3, rng=0)",
    "x: expected dtype float64 .*, got float32; .*: cast x": "CORNER.forward(X.astype('>f4'))",
    "x: expected a dense tensor, got one of layout .*coo": "one(torch.eye(3)).forward(SPARSE)",
    "x: expected a dense tensor, got a nested tensor": "one(torch.eye(3)).forward(NESTED)",
    "x: expected a real floating dtype": "one(EYE).forward(RECORDS)",
    "layers: expected modules with forward.* Linear at 1": "it.ReversibleChain([LAYER, LINEAR])",
    "in a list, got one ActNorm": "it.ReversibleChain(LAYER)",
    "takes one list of layers": "it.ReversibleChain(LAYER, LAYER)",
    r"got Autoreg.* at 0; InvertibleModule\(conv\) is one": "it.ReversibleChain([CORNER])",
    "x: expected a torch.Tensor, got ndarray": "it.ReversibleChain([LAYER])(X)",
    "cls: expected a class of invconv with an init, got 'A": "invconv_jax.init(KEY, 'ActNorm', 3)",
    "cls: expected a class of invconv": "invconv_jax.init(KEY, ic.Chain, 3)",
    "come from the key": "invconv_jax.init(KEY, ic.ActNorm, 3, rng=RNG)",
    "dtype= says": "invconv_jax.init(KEY, ic.ActNorm, 3, like=jax.numpy.zeros(0))",
    "expected a real floating dtype": "invconv_jax.init(KEY, ic.ActNorm, 3, dtype='int32')",
    "positional arguments": "it.EmergingConv2d(3, 3, 3)",  # not in, out, size, as PyTorch's own
    r"got ActNorm; of a layer pass layer.operator\(\)": "it.InvertibleModule(LAYER)",
    r"got tuple; a layer returns \(z, log_det\)": "torch.nn.Sequential(LAYER, LAYER)(IMAGES)",
    "x: expected an array without a mask.*filled": "CORNER.forward(MASKED)",
    "weight: expected an array without a mask": "one(np.ma.masked_equal(EYE, 1))",
}


@pytest.mark.parametrize("message", VALUES)
def test_a_wrong_value(message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        eval(VALUES[message])
    assert type(caught.value) is ValueError
    assert threads.number == 1  # whatever number was refused


@pytest.mark.parametrize("message", TYPES)
def test_a_wrong_type(message: str) -> None:
    with pytest.raises(TypeError, match=message):
        eval(TYPES[message])


class Flip(torch.nn.Module):  # type: ignore[misc]
    """A step of a reversible chain that is no operator."""

    inverse = forward = lambda self, x: (x.flip(-1), x.new_zeros(len(x)))


def test_a_pointwise_layer_of_torch_takes_ndim() -> None:
    x = torch.as_tensor(X)
    for layer in (it.Conv1x1(3, ndim=2), it.Conv1x1(3, "plu", ndim=2), it.ActNorm(3, ndim=2)):
        layer.double()
        for whole, alone in zip(layer(x), layer(x[0]), strict=True):  # without a batch axis
            torch.testing.assert_close(whole[0], alone)


def test_numpy_integers_are_settings() -> None:
    conv = ic.AutoregressiveConv(KERNEL, direction=np.int8(-1), dilation=(np.int64(2), 1))  # type: ignore[arg-type]
    assert conv.direction == (-1, -1)
    assert conv.dilation == (2, 1)


@pytest.mark.parametrize("case", cases_named(*ONE_OF_EACH), ids=lambda case: case.name)
def test_stacked_operators_are_not_taken_for_one(case: Case) -> None:
    """Three of 3 channels look like one of a further axis in many ways."""
    x, grid = jax.numpy.asarray(case.images(1)[0]), case.spatial_shape
    conv = ic.Inverse(case.conv()).asarrays(x)
    for count in (2,) if "symmetric" in case.name else (2, 3):  # of whose kernel that is true
        stacked = jax.tree.map(lambda a, n=count: jax.numpy.stack([a] * n), conv)
        for one in (stacked, stacked.conv):
            calls = (one.forward, x), (one.inverse, x), (one.log_det, grid), (one.prepare, grid)
            for function, argument in calls:
                with pytest.raises(ValueError, match=r"one axis more, .* call it under jax.vmap"):
                    function(argument)


@pytest.mark.parametrize("cls", [cls for cls in own_operators() if hasattr(cls, "init")])
def test_without_a_generator_init_draws_anew(cls: Any) -> None:
    one, other = (cls.init(16).parameters() for _ in range(2))
    assert all(np.isfinite(a).all() for a in one.values())
    drawn = [n for n in one if not np.array_equal(one[n], other[n])]
    assert drawn or cls is ic.ActNorm  # which begins at the identity


FOREIGN = np.dtype(">f8" if sys.byteorder == "little" else "<f8")  # as a file of FITS has it


@pytest.mark.parametrize("cls", [ic.AutoregressiveConv, ic.PeriodicConv, ic.CirculantConv1x1])
def test_arrays_in_a_foreign_byte_order(cls: Any) -> None:
    """An operator keeps its numbers in the machine's byte order, a result is in its argument's."""
    conv = cls.init(3, rng=np.random.default_rng(0)).replace(bias=ONES)
    foreign = conv.asarrays(np.empty(0, FOREIGN))
    assert {p.dtype for p in foreign.parameters().values()} == {np.dtype(float)}
    for method in ("forward", "inverse", "transpose", "forward_vjp", "inverse_vjp"):
        given = () if method == "transpose" else (X, X[::-1]) if "vjp" in method else (X,)
        found, wanted = (
            getattr(one, method)(*(a.astype(dtype) for a in given))
            for one, dtype in ((foreign, FOREIGN), (conv, float))
        )
        if method == "transpose":
            found, wanted = (ic.bounded(one, 3.0).forward(X) for one in (found, wanted))
        elif given[1:]:
            (_, found), (_, wanted) = found, wanted
            assert found.dtype == FOREIGN
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: ic.PeriodicConv(np.ones((5, 5))), "of one channel it is kernel[None, None]"),
        (lambda: ic.PeriodicConv.init(2, (3, 3, 3), rng=RNG), "ndim=3 makes it so many axes"),
        (lambda: ONE.forward(X[0]), "of one image it is x[None], or say ndim=2 when it is made"),
        (lambda: ic.EmergingConv.init(2, rng=jax.random.key(0)), "invconv_jax.init takes a key"),
        (lambda: PERIODIC.forward(np.moveaxis(X, 1, -1)), "by moveaxis(x, -1, -3)"),
        (lambda: ONE.forward(np.moveaxis(X, 1, -1)), "by moveaxis(x, -1, 1)"),
        (lambda: BLUR.inverse(np.ones((5, 5))), "without its channel axis is y[None]"),
        (lambda: BLUR.inverse(np.ones((3, 5, 5))), "their channel axis are y[..., None, :, :]"),
        (lambda: it.EmergingConv2d(2, (3, 3, 3)), "got 3: (3, 3, 3); EmergingConv3d takes so many"),
        (lambda: it.PeriodicConv2d(2, (3, 3, 3, 3)), "got 4: (3, 3, 3, 3)"),
        (lambda: it.PeriodicConv2d(2, padding=1), "PeriodicConv2d.__init__() got an unexpected"),  # type: ignore[call-arg]
        (lambda: LAYER(torch.as_tensor(X)), "call layer.double() or x.float()"),
        (lambda: LAYER.inverse(torch.as_tensor(X)), "call layer.double() or z.float()"),
        (lambda: ic.save([LAYER], "f"), "Chain([layer.operator() for layer in ...])"),
        (lambda: register_backend("dask.array", np), "without dots, 'dask' of dask.array, got "),
        (lambda: register_backend("dask", ArrayOps), "module: expected a module, got <class"),  # type: ignore[arg-type]
        (lambda: it.ReversibleChain([Flip()]).operator(), "such as EmergingConv2d, got Flip at 0"),
        (lambda: torch.fx.symbolic_trace(LAYER), "symbolic_trace, which sees no shapes; torch.exp"),
        pytest.param(
            lambda: torch.jit.script(LAYER),
            "jit.script cannot compile ActNorm; torch.export.export",
            marks=pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
        ),
    ],
)
def test_an_error_says_what_to_do(call: Any, hint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(hint)):
        call()


def test_names_that_are_gone_are_told_by_a_sentence() -> None:
    for package, name, instead in (
        (it, "ConditionGuard", r"InverseGuard\(model, every=100\)"),
        (invconv_jax, "ConditionGuard", r"InverseGuard\(model, spatial_shape, every=100\)"),
        (invconv_jax, "ChannelsLast", r"channels_last\(conv\) does the same"),
        (invconv_jax, "Reversible", r"reversible\(chain, spatial_shape\) does the same"),
        (invconv_jax, "register", "leave the call out"),
    ):
        with pytest.raises(AttributeError, match=f"{name} is gone since 1.0: .*{instead}"):
            getattr(package, name)
        with pytest.raises(ImportError, match=f"{name} is gone since 1.0: .*{instead}"):
            exec(f"from {package.__name__} import {name}")
        assert not hasattr(package, name)
    with pytest.raises(AttributeError, match="module 'invconv_torch' has no attribute 'Nonsense'"):
        _ = it.Nonsense  # type: ignore[attr-defined]
