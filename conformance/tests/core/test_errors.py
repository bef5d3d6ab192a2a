"""Wrong and odd input: each error is of its kind, says what was expected, what came and what to do.

What every operator refuses alike (grids, channels, dtypes, devices, cotangents) is in the laws
"errors", "no_promotion" and "no_transfer"; here is what single classes and functions refuse. A case
is the start of a message and a call; beside it, `JUST_RIGHT` has calls that are barely allowed.
"""

# mypy: disable-error-code="arg-type, call-arg, func-returns-value"

import functools
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax as ij
import invconv_torch as it
from invconv.files.saving import DEEPEST
from invconv.kernels.cpu import threads
from invconv_benchmarks.docs.pages import PACKAGES
from invconv_conformance import check_operator
from invconv_conformance.cases.table import Case
from invconv_jax.reversible_chain import Reversible
from tests.files.test_files import nested
from tests.flows.small_flows import Rolled, glow
from tests.selected import ONE_OF_EACH, OWN, cases_named, slow, turned

RNG = np.random.default_rng(0)
CORNER: Any = ic.AutoregressiveConv.init(3, rng=RNG)
PERIODIC: Any = ic.PeriodicConv.init(3, rng=RNG)
EMERGING: Any = ic.EmergingConv.init(3, rng=RNG)
ONE: Any = ic.Conv1x1.init(3, rng=RNG)
X: Any = RNG.standard_normal((2, 3, 4, 5))
BLUR: Any = ic.from_psf(np.outer([1, 4, 1], [1, 4, 1]) / 36)
KERNEL: Any = CORNER.kernel
BACK = ic.AutoregressiveConv(KERNEL, direction=-1)
READY: Any = PERIODIC.prepare((4, 5))
TorchTransform: Any = it.interop.TorchTransform
Flowjax: Any = ij.interop.FlowjaxBijection
EYE: Any = np.eye(3)
ONES: Any = np.ones(3)
LAYER, IMAGES = it.ActNorm(3), torch.zeros(1, 3, 2, 2)
KEY = jax.random.key(0)
MASKED: Any = np.ma.masked_invalid(np.full((1, 3, 4, 4), np.nan))
NESTED: Any = torch.nested.nested_tensor([torch.ones(3, 4)], layout=torch.jagged)
RECORDS: Any = np.rec.array(np.zeros((2, 3, 4), [("a", "f8")]))
SIGNAL: Any = ic.AutoregressiveConv.init(3, ndim=1)
SMALL: Any = np.ones(3, "float32")
GROWN = ic.PeriodicConv(SMALL[None, None])
GAP: Any = EYE * [[1], [0], [1]]
PAIR: Any = np.ones((2, 2))
S: Any = np.zeros(8)
Y: Any = np.ones((1, 2, 8))
NORM = ic.ActNorm(np.asarray([0.0, -np.inf]), None)
BOX: Any = ic.PeriodicConv(np.ones((1, 1, 2)))
STEP = ic.PeriodicConv(np.asarray([[[-1.0, 1]]]))
NANS: Any = ic.PeriodicConv(np.full((1, 1, 3), np.nan))
MIRROR = ic.SymmetricConv(np.ones((1, 1, 2)), boundary="mirror")
SKEW = [[0.2, 1.0, 0.2], [1e-8, 1e-7, 3e-8]]
EDGE, RING, TWO = np.outer([1, 5, 1.1], [0, 1, 0]), ["periodic"] * 2, [[1.0, 0, 0, 1, 0, 0]] * 2
TALL = ic.AutoregressiveConv(np.ones((1, 1, 3, 2)), direction=(-1, 1))
BLOCK = np.zeros((2, 1, 4, 5))
JAX_X: Any = jax.numpy.asarray(X)
JAX_CORNER: Any = CORNER.asarrays(JAX_X)
JAX_ONE: Any = ic.Chain([ic.Conv1x1(jax.numpy.eye(4))])
JAX_NORM = ic.ActNorm(jax.numpy.ones(2), None)
GROWS = ic.AutoregressiveConv(np.asarray([[[1.0, -3.0]]], np.float32))
LOSES = turned(3.67, 0.272).asarrays(JAX_X.astype("float32"))  # a digit
GROWING = it.ReversibleChain([it.InvertibleModule(GROWS)])
SINGULAR = it.InvertibleModule(ic.Conv1x1(np.zeros((1, 1))))
BRAINS = np.asarray(jax.numpy.ones(3, "bfloat16"))
BRAIN, FAR = torch.zeros(0, dtype=torch.bfloat16), np.asarray([-1e39, 1.0])
TAPS = X[:, :, None][:, :, [0] * 3]
JAX_CHAIN: Any = ij.reversible(JAX_ONE, (4, 4))
FLOW, GIVEN = glow("plain"), glow("plain", context=2)
FLOW.initialize(torch.rand(8, 1, 4, 4))
PIXELS, NOISE = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.rand(3, 1, 4, 4)
CONTEXT, ZS = torch.zeros(3, 2), [torch.zeros(3, 2, 2, 2), torch.zeros(3, 8, 1, 1)]
JAX_FLOW: Any = ij.flows.Glow.init(KEY, (1, 4, 4), 1, 1, 4, dtype="float32")
JAX_PIXELS: Any = jax.numpy.zeros((3, 1, 4, 4), "uint8")
JAX_NOISE: Any = jax.random.uniform(KEY, (3, 1, 4, 4), "float32")


def plu(**changes: Any) -> ic.PLUConv1x1:
    fields: dict[str, Any] = {"permutation": np.arange(3), "lower": EYE, "upper": EYE}
    fields |= {"sign": ONES, "log_scale": np.zeros(3)}
    return ic.PLUConv1x1(**(fields | changes))


def corner(*kernel: Any, **settings: Any) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv(*(kernel or (KERNEL,)), **settings)


def kept(model: Any, cut: int | None = None) -> str:
    """Save a model, and leave so much of the file."""
    ic.save(model, "kept")
    Path("kept").write_bytes(Path("kept").read_bytes()[:cut])
    return "kept"


TOO_DEEP, DEEP = nested(DEEPEST + 1), nested(DEEPEST)


def defined() -> ic.Conv1x1:
    """Return an operator of a class that is defined anew by each call."""
    return type("Defined", (ic.Conv1x1,), {"__module__": "a_notebook"})(EYE)  # type: ignore[no-any-return]


def adapter(**names: Any) -> ModuleType:
    module = ModuleType("adapter")
    vars(module).update(names)
    return module


def clipped() -> it.ActNorm:
    """Return a layer whose scales are computed from others, which nobody knows by them."""
    norm = it.ActNorm(3)
    torch.nn.utils.parametrize.register_parametrization(norm, "log_scale", torch.nn.Hardtanh())
    return norm


def stepped(boundary: str) -> ic.SymmetricConv:
    return ic.SymmetricConv(STEP.kernel * [2, 1], boundary=boundary)


def wide(on: bool, run: Any) -> Any:
    """Run something where JAX has float64, or has not."""
    with jax.enable_x64(on):
        return run()


class Flip(torch.nn.Module):  # type: ignore[misc]
    """A step of a reversible chain that is no operator."""

    inverse = forward = lambda self, x: (x.flip(-1), x.new_zeros(len(x)))


def contextual(context: Any) -> torch.nn.Module:
    """Return a layer of a user's that takes a context."""
    layer = Rolled(1)
    layer.context = context
    return layer


def other(name: str) -> Any:
    """Return a flow one of whose layers is another one."""
    flow = glow("periodic")
    flow.layers[name] = it.PeriodicConv2d(4, dilation=2, bias=False)
    return flow


# by the public name whose docstring promises the error, or by the kind of an error
CASES: dict[Any, list[tuple[str, Callable[[], Any]]]] = {
    "invconv.ActNorm.initialize": [
        ("x: expected images that vary", lambda: ic.ActNorm.init(3).initialize(X * 0 + 0.1)),
        ("x: expected images that vary", lambda: ic.ActNorm.init(3).initialize(X * np.nan)),
    ],
    "invconv.Chain.initialize": [
        ("step 1: x: expected", lambda: ic.Chain([ONE, ic.ActNorm.init(3)]).initialize(X * 0)),
        ("step 1: x:", lambda: ic.Chain([ONE, ic.ActNorm.init(3)]).initialize(X * np.nan)),
    ],
    "invconv.InvertibleConv.inverse": [("Conv1x1 is", lambda: ic.Conv1x1(EYE * 0).inverse(X))],
    "invconv.InvertibleConv.prepare": [("Conv1x1 i", lambda: ic.Conv1x1(EYE * 0).prepare((4, 5)))],
    "invconv.least_squares": [
        ("y: expected shape", lambda: BOX.least_squares(Y)),
        ("kernel: expected finite numbers", lambda: NANS.least_squares(Y[:, :1])),
        ("damp: expected a finite number of at least", lambda: BOX.least_squares(Y[:, :1], -1.0)),
        ("damp: expected a finite number of at", lambda: BOX.least_squares(Y[:, :1], np.nan)),
        ("penalty: expected an operator that the", lambda: BOX.least_squares(Y[:, :1], 1, NORM)),
    ],
    "invconv.PreparedInverse.least_squares": [
        ("least_squares: expected a periodic,", lambda: EMERGING.prepare((4, 5)).least_squares(X)),
    ],
    "invconv.ExponentialConv": [("kernel: e", lambda: ic.ExponentialConv(np.zeros((1, 1, 3, 2))))],
    "invconv.bounded": [
        ("whose class bounds its inverse, got", lambda: ic.bounded(ic.Inverse(ONE), 10.0)),
        ("max_gain: expected a finite number above 1", lambda: ic.bounded(ONE, np.nan)),
        ("max_gain: expected a finite number above 1", lambda: ic.bounded(ONE, "10")),
        ("max_gain: expected a finite number above 1", lambda: ic.bounded(ONE, 1 + 1e-10)),
    ],
    "invconv.damp_for_noise": [
        ("conv: expected an operator with", lambda: ic.damp_for_noise(EMERGING, X, 0.1)),
        ("sigma: expected a finite number above 0, got 0;", lambda: ic.damp_for_noise(NORM, Y, 0)),
        ("sigma: expected a finite number above 0,", lambda: ic.damp_for_noise(NORM, Y, np.inf)),
        ("mask: expected an array that", lambda: ic.damp_for_noise(NORM, Y, 0.8, mask=np.ones(3))),
        ("mask: expected some entries of y", lambda: ic.damp_for_noise(NORM, Y, 0.8, mask=S)),
        ("sigma: expected less noise .*, got 1,", lambda: ic.damp_for_noise(NORM, Y, 1.0)),
        ("sigma: expected at least 0.707, .* rounding,", lambda: ic.damp_for_noise(NORM, Y, 0.5)),
    ],
    "invconv.diagnose": [
        ("expected 2 spatial axes", lambda: ic.diagnose(CORNER, (4,))),
        ("dtype: expected float32, float64", lambda: ic.diagnose(CORNER, (4, 4), "int32")),
    ],
    "invconv.filtfilt": [
        ("b: expected real numbers .* got complex128", lambda: ic.filtfilt([1j], [1.0], S)),
        ("x: expected more than 8 samples along", lambda: ic.filtfilt([1.0], [1.0], S, padlen=8)),
    ],
    "invconv.SymmetricConv": [
        (r"kernel: .* not even", lambda: ic.SymmetricConv(np.asarray([[[1.0, 4.0, 2.0]]]))),
    ],
    "invconv.from_psf": [
        (r"psf: expected odd sizes, .* got \(2, 3\)", lambda: ic.from_psf(np.ones((2, 3)))),
        ("psf: expected its centre in the middle, at 1", lambda: ic.from_psf(EYE[0])),
        ("differs from its flip", lambda: ic.from_psf([0.2, 1, 0.2 + 4e-06])),
        ("psf: expected finite numbers", lambda: ic.from_psf([1.0, np.nan, 1])),
        (
            r"psf: expected a sum other than zero, .* PeriodicConv\(kernel\).least",
            lambda: ic.from_psf([[1, 3, 1], [1.0, -2, 1]], boundary=["mirror"]),
        ),
    ],
    "invconv.lfilter": [
        ("b: expected real numbers .* got complex128", lambda: ic.lfilter([1j], [1.0], S)),
        ("b: expected an array of numpy", lambda: ic.lfilter(torch.ones(1), [1.0], S)),
        (r"a: expected a\[0\] other than zero", lambda: ic.lfilter([1.0], [0.0, 1.0], S)),
        ("b, a: expected axes .* that", lambda: ic.lfilter(np.ones((2, 1)), [1.0], S[None])),
    ],
    "invconv.lfilter_zi": [
        (r"a: expected a\[0\] other than zero", lambda: ic.lfilter_zi([1.0], [0.0, 1.0])),
        ("a: expected a sum other than zero", lambda: ic.lfilter_zi([1.0], [1.0, -1])),
    ],
    "invconv.SpectralConv.spectrum": [("expected 2 spatial", lambda: PERIODIC.spectrum((4,)))],
    "invconv.SpectralConv.funm": [
        ("x: expected shape", lambda: BLUR.funm(np.exp, X)),
        ("kernel: expected one channel for funm, got 3", lambda: PERIODIC.funm(np.exp, X[:, :])),
        ("kernel: expected an even one", lambda: BOX.funm(np.exp, S[None])),
        ("f: expected a number", lambda: BLUR.funm(lambda k: k[:1], X[:, :1])),
        ("f: expected finite numbers", lambda: BLUR.funm(lambda k: np.log(-k), X[:, :1])),
    ],
    "invconv.load": [
        ("no whole safetensors file", lambda: ic.load(__file__)),
        ("no whole safetensors file", lambda: ic.load(kept(ONE, -1))),
        ("like: .*kept holds bfloat16, which NumPy", lambda: ic.load(kept(ONE.asarrays(BRAIN)))),
        ("like: .* holds a flow, and numpy has none", lambda: ic.load(kept(FLOW), S)),
        ("like: .*log_scale, up to", lambda: ic.load(kept(ic.ActNorm(FAR, None)), SMALL)),
        ("nowhere", lambda: ic.load("nowhere")),
    ],
    "invconv.propagate": [
        (r"taps: expected the shape \(1,", lambda: ic.propagate(Y, np.ones((1, 1, 2, 8)), [(-1,)])),
        ("taps: expected an array of", lambda: ic.propagate(Y, torch.ones((1, 1, 1, 8)), [(-1,)])),
        ("gain: expected", lambda: ic.propagate(Y, Y[:, :, None], [(-1,)], Y.astype("float32"))),
        (r"earlier; \(-1, 2\) and", lambda: ic.propagate(X, TAPS[:, :, 1:], [(-1, 2), (1, -1)])),
    ],
    "invconv.unpropagate": [
        ("offsets: .* other than the own one,", lambda: ic.unpropagate(Y, Y[:, :, None], [(0,)])),
    ],
    "invconv.map_coordinates": [
        ("x: expected a real floating dtype", lambda: ic.map_coordinates(S.astype(int), [[1.0]])),
        ("coordinates: expected an array of", lambda: ic.map_coordinates(S, torch.ones((1, 2)))),
        ("order: expected an integer from 0 to 5, got", lambda: ic.map_coordinates(S, [[1.0]], 6)),
    ],
    "invconv.richardson_lucy": [
        ("y: expected shape", lambda: ic.richardson_lucy(BLUR, X)),
        ("mask: expected an array", lambda: ic.richardson_lucy(BLUR, X[:, :1], mask=np.ones(3))),
        ("sigma: expected an array", lambda: ic.richardson_lucy(BLUR, X[:, :1], sigma=np.ones(3))),
        ("background: expected a", lambda: ic.richardson_lucy(BLUR, X[:, :1], background=-1)),
        ("background: expected a", lambda: ic.richardson_lucy(BLUR, X[:, :1], background=np.inf)),
        ("background:", lambda: ic.richardson_lucy(BLUR, X[:, :1], background=np.ones(3))),
        ("sigma: expected a finite number", lambda: ic.richardson_lucy(BLUR, X[:, :1], sigma=0)),
        ("iterations: expected a", lambda: ic.richardson_lucy(BLUR, X[:, :1], iterations=0)),
    ],
    "invconv.save": [
        ("model: expected an InvertibleConv or a layer that holds", lambda: ic.save(EYE, "f")),
        ("of the class Defined as it is defined", lambda: ic.save([defined(), defined()][0], "f")),
        ("log_scale: expected", lambda: ic.save(ic.ActNorm(np.asarray([0.0, np.nan]), None), "f")),
        ("log_scale: expected", lambda: ic.save(ic.ActNorm(np.asarray([0.0, np.inf]), None), "f")),
        ("18000 arrays are more than", lambda: ic.save(ic.Chain([ONE] * 18000), "f")),
        ("nested .* deep at most", lambda: ic.save(TOO_DEEP, "f")),
        ("its mixing is a function, which", lambda: ic.save(glow(lambda c: it.Conv1x1(c)), "f")),
        ("cannot be saved.* expected", lambda: ic.save(other("level0_step0_mixing"), "f")),
        ("no such folder", lambda: ic.save(ONE, "nowhere/f")),
    ],
    "invconv.set_num_threads": [
        ("a positive integer, got 1.5", lambda: ic.set_num_threads(1.5)),
        ("a positive integer up to 2147483647, got 0", lambda: ic.set_num_threads(0)),
    ],
    "invconv.sosfilt": [
        (r"a: expected a\[0\] other than zero", lambda: ic.sosfilt([[1.0, 0, 0, 0, 1, 0]], S)),
        (r"sos: expected the shape \(..., sections,", lambda: ic.sosfilt([[1.0, 0, 0, 1, 0]], S)),
        (r"zi: expected 1 states, .* got \(8,\)", lambda: ic.sosfilt(TWO[:1], S, zi=S)),
    ],
    "invconv.sosfilt_zi": [
        ("sos: expected the shape", lambda: ic.sosfilt_zi([[1.0, 0, 0, 1, 0]])),
        ("a: expected a sum other than zero", lambda: ic.sosfilt_zi([[1.0, 0, 0, 1, -1, 0]])),
    ],
    "invconv.sosfiltfilt": [
        ("sos: expected the shape", lambda: ic.sosfiltfilt([[1.0, 0, 0, 1, 0]], S)),
        ("padlen: expected 0 or more, got -1", lambda: ic.sosfiltfilt(TWO[:1], S, padlen=-1)),
    ],
    "invconv.spline_filter": [
        ("x: expected a real .* real and imaginary part", lambda: ic.spline_filter(S + 1j)),
        ("x: expected a real floating dtype", lambda: ic.spline_filter(S.astype(int))),
        ("order: expected an integer from 2 to 5, got 6", lambda: ic.spline_filter(S, 6)),
    ],
    "invconv_torch.InvertibleModule.initialize": [
        ("x: expected images that vary", lambda: it.ActNorm(3).initialize(torch.zeros(2, 3, 4))),
        ("x: expected images that vary", lambda: it.ActNorm(3).initialize(torch.rand(2, 3, 4) / 0)),
        ("expected parameters named", lambda: clipped().initialize(torch.rand(2, 3, 4))),
    ],
    "invconv_torch.ActNorm.initialize": [
        ("x: expected images that vary", lambda: it.ActNorm(3).initialize(torch.zeros(2, 3, 4))),
        ("x: expected images that vary", lambda: it.ActNorm(3).initialize(torch.rand(2, 3, 4) / 0)),
        ("expected parameters named", lambda: clipped().initialize(torch.rand(2, 3, 4))),
    ],
    "invconv_torch.lfilter": [
        (r"a: expected a\[0\]", lambda: it.audio.lfilter(IMAGES, IMAGES[0, 0, 0], IMAGES[0, 0, 0])),
        (r"shape \(..., 3,", lambda: it.audio.lfilter(IMAGES[:, :2, 0], *[torch.ones(3, 2)] * 2)),
    ],
    "invconv_torch.deemph_biquad": [("sample_rate", lambda: it.audio.deemph_biquad(IMAGES, 8000))],
    "invconv_torch.riaa_biquad": [("sample_rate:", lambda: it.audio.riaa_biquad(IMAGES, 8000))],
    "invconv_torch.Chain": [
        ("layers: expected modules .* got none", lambda: it.Chain([])),
        ("layers: expected modules with", lambda: it.Chain([LAYER, torch.nn.Linear(3, 3)])),
    ],
    "invconv_torch.Chain.operator": [
        ("such as EmergingConv2d, got Squeeze at 0", lambda: it.Chain([it.Squeeze()]).operator()),
        ("such as EmergingConv2d, got Flip at 0", lambda: it.ReversibleChain([Flip()]).operator()),
    ],
    "invconv.InverseGuard.step": [
        ("model: expected an operator or", lambda: ij.InverseGuard(JAX_NORM, (4,)).step([1])),
        ("layers have run under the guard, got None", lambda: it.InverseGuard(LAYER).step(LAYER)),
        ("model: expected", lambda: jax.jit(ij.InverseGuard(JAX_NORM, (4,)).step)(JAX_NORM)),
    ],
    "invconv_torch.ReversibleChain.forward": [
        ("layer 0: expected an inverse that can", lambda: GROWING(torch.zeros(1, 1, 30))),
    ],
    "invconv_torch.load": [("no whole safetensors file", lambda: it.load(kept(LAYER, -1)))],
    "invconv_torch.Dequantize.forward": [
        ("images: expected pixels in uint8,", lambda: it.flows.Dequantize()(PIXELS.int(), NOISE)),
        ("noise: expected the shape of", lambda: it.flows.Dequantize()(PIXELS, NOISE[1:])),
        ("noise: expected a real floating", lambda: it.flows.Dequantize()(PIXELS, NOISE.int())),
        (r"noise: expected numbers in \[0,", lambda: it.flows.Dequantize()(PIXELS, NOISE + 1.5)),
    ],
    "invconv_torch.Dequantize.inverse": [
        ("x: expected numbers, got NaN,", lambda: it.flows.Dequantize().inverse(NOISE * np.nan)),
        ("x: expected a real floating dtype", lambda: it.flows.Dequantize().inverse(PIXELS)),
    ],
    "invconv_torch.Multiscale.initialize": [
        ("initialized already", lambda: FLOW.initialize(NOISE)),
        ("layers.level0_step0_actnorm", lambda: glow("plain").initialize(NOISE * 0)),
        ("x: expected", lambda: glow("plain").initialize(NOISE * np.nan)),
    ],
    "invconv_torch.Multiscale.log_prob": [
        ("x: expected shape", lambda: FLOW.log_prob(torch.rand(3, 1, 4, 8))),
        (r"x: expected images in \[0, 1\),", lambda: FLOW.log_prob(torch.full_like(NOISE, 1.0))),
    ],
    "invconv_torch.Multiscale.prepare": [
        ("exactly singular", lambda: it.flows.Multiscale((1, 4, 4), [SINGULAR]).prepare()),
    ],
    "invconv_torch.Multiscale": [
        ("layers: 1", lambda: it.flows.Multiscale((1, 4, 4), [it.ActNorm(1), it.ActNorm(2)])),
    ],
    "invconv_jax.load": [
        ("no whole safetensors file", lambda: ij.load(kept(JAX_ONE, -1))),
        ("jax_enable_x64", lambda: wide(False, lambda: ij.load(kept(ONE)))),
    ],
    "invconv_jax.reversible": [
        ("chain: expected arrays of JAX, got", lambda: ij.reversible(ic.Chain([ONE]), (4,))),
        ("got a traced", lambda: jax.jit(lambda c: ij.reversible(c, (4,)).chain)(JAX_ONE)),
        (r"steps\[0\]:", lambda: ij.reversible(ic.Chain([GROWS.asarrays(JAX_NOISE)]), (30,))),
        ("chain: expected an inverse", lambda: ij.reversible(ic.Chain([LOSES] * 6), (4, 4))),
    ],
    "invconv_jax.Glow.initialize": [
        ("initialized already", lambda: JAX_FLOW.initialize(JAX_NOISE).initialize(JAX_NOISE)),
        ("expected images that vary", lambda: JAX_FLOW.initialize(JAX_NOISE * 0)),
        ("x: expected", lambda: JAX_FLOW.initialize(JAX_NOISE * np.nan)),
    ],
    "invconv_jax.Glow.log_prob": [
        (r"x: expected shape \(B, 1, 4, 4\)", lambda: JAX_FLOW.log_prob(JAX_NOISE[:, :, :2])),
        (r"x: expected images in \[0, 1\), got numbers", lambda: JAX_FLOW.log_prob(JAX_NOISE - 2)),
    ],
    "invconv_conformance.check_operator": [
        ("Conv1x1, numpy float64:", lambda: check_operator(ic.Conv1x1(2 * EYE), EYE * 3)),
        ("conv: expected an invertible .* of rank 0", lambda: check_operator(ic.Conv1x1(EYE * 0))),
        ("matrix: expected an invertible", lambda: check_operator(ic.Conv1x1(2 * EYE), 2 * GAP)),
    ],
    ValueError: [
        ("spatial_shape: expected", lambda: check_operator(ic.Conv1x1(EYE), spatial_shape=(0,))),
        ("precision: expected 'float64', got", lambda: CORNER.prepare((4, 5), precision="auto")),
        ("norm: expected 1 or inf, or None, got 2", lambda: CORNER.condition((4, 5), norm=2)),
        ("one pixel .* at most, got", lambda: CORNER.log_det((2**31, 5))),
        ("kernel_size: expected odd sizes, .* got 4", lambda: ic.EmergingConv.init(3, 4)),
        ("kernel_size: expected odd sizes, .* got 4", lambda: ic.SymmetricConv.init(3, 4)),
        ("kernel_size: expected at least 1", lambda: ic.PeriodicConv.init(2, kernel_size=0)),
        ("dilation: .* axis, 2147483647 at", lambda: ic.PeriodicConv(KERNEL, dilation=2**63)),
        ("dilation: .* got 3", lambda: ic.PeriodicConv(KERNEL, dilation=(1, 1, 1))),
        ("mask: expected 'corner' or 'raster', got array", lambda: corner(mask=np.ones(2))),
        ("channel_order: expected 'lower' or 'upper'", lambda: corner(channel_order="low")),
        ("padding: expected 'zeros'", lambda: ic.ExponentialConv(EYE[..., None], padding="zero")),
        ("padtype: expected 'odd' or", lambda: ic.filtfilt([1], [1, 0.5], S, padtype="edge")),
        ("direction: a", lambda: ic.AutoregressiveConv.init(2, mask="raster", direction=(1, -1))),
        ("a raster mask needs an odd size along every", lambda: corner(KERNEL, mask="raster")),
        ("second: expected the direction opposite", lambda: ic.EmergingConv(CORNER, CORNER)),
        ("second: expected 2 spatial axes as first has,", lambda: ic.EmergingConv(CORNER, SIGNAL)),
        (r"permutation: .* 2 once, got \[0, 0", lambda: plu(permutation=np.asarray([0, 0, 1]))),
        ("sign: expected a positive or negative", lambda: plu(sign=np.asarray([1.0, 0.0, 1.0]))),
        ("reflectors: expected no zero vector, got one in", lambda: ic.QRConv1x1(GAP, EYE, ONES)),
        (r"weight: expected shape \(C, C\), got \(0, 0\)", lambda: ic.Conv1x1(EYE[:0, :0])),
        (r"kernel: expected shape .* got \(3, 3, 0\)", lambda: ic.PeriodicConv(KERNEL[..., 0, :0])),
        (r"log_scale: expected shape \(C,\), got \(3, 3\)", lambda: ic.ActNorm(EYE, None)),
        (r"names of axes, .*, got \(\)", lambda: ic.extend.array()),
        (r"reflectors: expected shape \(m, C\), got \(3,\)$", lambda: ic.OrthogonalConv1x1(ONES)),
        (r"upper: expected shape \(C, C\) with C = 2 as", lambda: ic.QRConv1x1(PAIR, EYE, ONES)),
        ("steps: expected at least one operator", lambda: ic.Chain([])),
        (r"steps\[1\]: expected 3 channels as", lambda: ic.Chain([ONE, ic.Conv1x1.init(2)])),
        (r"steps\[1\]: expected 2 spatial axes as steps\[0\]", lambda: ic.Chain([CORNER, SIGNAL])),
        (r"x: expected shape .* 2 spatial axes, got \(4, 4\)", lambda: ic.squeeze(np.ones((4, 4)))),
        (r"x: .* divisible by 2, got \(4, 5\)", lambda: ic.squeeze(X, 2)),
        ("x: .* divisible by 4, got 3", lambda: ic.unsqueeze(X)),
        ("factor: expected a power", lambda: ic.squeeze(np.ones((1, 1, 6, 6)), 3, basis="haar")),
        ("basis: expected 'pixels'", lambda: ic.squeeze(np.ones((1, 1, 6, 6)), basis="wavelet")),
        ("Conv1x1 is exactly", lambda: ic.Inverse(ic.Chain([ONE, ic.Conv1x1(GAP)])).forward(X)),
        ("kernel_size: expected odd", lambda: it.EmergingConv2d(4, kernel_size=2)),
        (r"x: expected shape \(batch, 3,", lambda: it.ReversibleChain([LAYER])(IMAGES[:, :2])),
        ("parametrization: expected", lambda: it.Conv1x1(4, "lu")),
        ("max_gain: expected .* above 1", lambda: it.Conv1x1(3, max_gain=0.1)),
        ("contra.* axis 0, and of", lambda: ic.propagate(X, TAPS, [(1, 0), (-1, 1), (0, -1)])),
        ("x: expected the shape .* with 1 spatial", lambda: ic.propagate(S, Y[:, :1], [(-1,)])),
        ("gain: expected", lambda: ic.propagate(Y, Y[:, :, None], [(-1,)], np.ones((3, 2, 8)))),
        ("offsets: expected a sequence of tuples.*,", lambda: ic.propagate(Y, Y[:, :, None], [])),
        ("b: expected at least one coefficient", lambda: ic.lfilter([], [1.0], S)),
        ("axis: expected one of the 1 axes of x, got 1", lambda: ic.lfilter([1.0], [1.0], S, 1)),
        ("zi: expected 1 numbers", lambda: ic.lfilter([1.0], [1.0, 0.5], EYE, zi=EYE[:2, :1])),
        (r"b: .* an axis more, as \[\[1.0\]\]", lambda: ic.varying_lfilter([1.0], [[1.0]], S)),
        ("zi: expected 1 numbers along", lambda: ic.lfilter([1.0], [1.0, 0.5], S, zi=S[:2])),
        ("b: expected rows of", lambda: ic.lfilter([[1.0], [1.0, 2.0]], [1.0], np.ones((2, 3)))),
        ("a: expected rows of one length", lambda: ic.lfilter_zi([1.0], [[1.0], [1.0, 2.0]])),
        ("psf: expected rows of one length", lambda: ic.from_psf([[1.0], [1, 2, 1], [1, 1, 1]])),
        (r"b, a: expected axes .* \(3,\)", lambda: ic.lfilter_zi(np.ones((3, 2)), np.ones((2, 3)))),
        ("boundary: expected one of 'periodic',", lambda: ic.from_psf(ONES, boundary=None)),
        (r"psf: expected 0 axes, .* shape \(\)", lambda: ic.from_psf(np.ones(()))),
        ("'reflect' of scipy.ndimage is", lambda: ic.from_psf([1.0], boundary="reflect")),
        ("boundary: expected borders without 'mirror' for", lambda: MIRROR.least_squares(S[None])),
        ("boundary:", lambda: ic.from_psf(np.ones((3, 5)), boundary=("symmetric", "zero"))),
        ("boundary: expected one of .* or 2", lambda: ic.SymmetricConv(KERNEL, boundary=("odd",))),
        ("mode: expected 'mirror' or .*, got 'wrap'", lambda: ic.spline_filter(S, mode="wrap")),
        (r"mode: .* got 'wrap'; \"wrap\" and", lambda: ic.map_coordinates(S, [[1]], mode="wrap")),
        (r"coordinates: expected the shape \(1,", lambda: ic.map_coordinates(S, [[1.0], [1.0]])),
        ("cval: expected a number", lambda: ic.map_coordinates(S, [[1.0]], cval="0")),
        ("x: expected at least one pixel", lambda: ic.map_coordinates(S[:0], [[1.0]])),
        ("axes: expected some of the 1 axes of x,", lambda: ic.spline_filter(S, axes=(0, -1))),
        (r"damp: .* image, of shape \(1,\), got", lambda: NORM.least_squares(Y, Y[0, :, 0])),
        ("y: expected images, got none", lambda: ic.damp_for_noise(NORM, Y[:0], 0.8)),
        ("penalty: expected finite numbers", lambda: BOX.least_squares(Y[:, :1], 1, NANS)),
        ("penalty: expected at least one operator,", lambda: BOX.least_squares(Y[:, :1], 1, [])),
        ("penalty: expected 2 channels and 1", lambda: NORM.least_squares(Y, 1, ic.Conv1x1(EYE))),
        ("sigma: .* got 0.9, and an x whose", lambda: ic.damp_for_noise(BOX, Y[:, :1], 0.9, STEP)),
        ("y: expected finite numbers, got NaN", lambda: ic.damp_for_noise(NORM, Y * np.nan, 0.8)),
        ("y: expected the grid", lambda: PERIODIC.prepare((3, 5)).least_squares(X)),
        (r"before: expected the shape \(2, 1, 2,", lambda: TALL.forward(BLOCK, BLOCK[:, :, :1])),
        ("last rows before this block", lambda: TALL.replace().transpose().inverse(BLOCK, BLOCK)),
        ("shape: expected sizes of at least 0,", lambda: ic.aslinearoperator(PERIODIC, (-1, 4))),
        (r"shape: expected shape \(\*batch, 3,", lambda: ic.aslinearoperator(PERIODIC, (2, 4, 5))),
        (r"grid \(4, 4\) on .*, got", lambda: JAX_CHAIN.forward_and_log_det(JAX_X[:, [0] * 4])),
        ("x: expected shape", lambda: ij.channels_last(JAX_NORM).forward(jax.numpy.zeros(2))),
        ("digits: expected a number from 0", lambda: it.InverseGuard(LAYER, (4,), digits=-1)),
        ("every: expected a positive", lambda: ij.InverseGuard(JAX_NORM, (4,), every=2**31)),
        ("spatial_shape: expected at least", lambda: ij.InverseGuard(JAX_NORM, lambda name: (0,))),
        (r"multiples of 2\^levels = 4, got 6 x 4", lambda: glow(shape=(1, 6, 4))),
        (r"shape: expected \(C, H, W\)", lambda: glow(shape=(4, 4))),
        ("levels", lambda: glow(levels=0)),
        ("squeeze", lambda: glow(squeeze="db4")),
        ("kernel_size: expected an odd number", lambda: glow(kernel_size=2)),
        ("scale_floor", lambda: glow(scale_floor=1.0)),
        ("context", lambda: glow(context=0)),
        ("reversible", lambda: glow(context=1, reversible=True)),
        ("layers: level0_step0_mixing", lambda: glow(lambda channels: it.Conv1x1(channels + 1))),
        ("expected 2 spatial axes, got 1", lambda: glow(mixing=it.PeriodicConv1d)),
        (r"expected float32 of shape \(3, 2\).*got none", lambda: GIVEN.log_prob(NOISE)),
        ("expected none, as no layer", lambda: FLOW.log_prob(NOISE, context=CONTEXT)),
        ("expected none, got", lambda: it.flows.AffineCoupling(2, 4)(ZS[0][:, :2], CONTEXT)),
        ("zs: expected a batch", lambda: FLOW.decode([ZS[0][:2], ZS[1]])),
        ("channels: expected an even number", lambda: it.flows.Split(3)),
        (r"x: expected shape \(B,", lambda: it.flows.AffineCoupling(4, 8)(torch.zeros(2, 3, 4, 4))),
        (r"x: expected shape \(B, 4, H, W\), got", lambda: it.flows.Split(4)(torch.zeros(4, 4, 4))),
        ("kept: expected shape", lambda: it.flows.Split(4).inverse([torch.zeros(2, 1, 4, 4)] * 2)),
        (r"z: expected shape \(2, 8, 1,", lambda: it.flows.Split(16).inverse((ZS[1][:2], ZS[1]))),
        ("layers: 0 .*context:", lambda: it.flows.Multiscale((1, 4, 4), [contextual(True)])),
        ("differ as text, got", lambda: it.flows.Multiscale((3, 2, 2), {"1": LAYER, 1: LAYER})),
        ("factor: expected a positive integer up to 2147483647, got -1", lambda: it.Squeeze(-1)),
        ("one log-determinant of", lambda: it.ReversibleChain([it.ActNorm(3, ndim=2)])(IMAGES[0])),
        ("noise: expected the shape of", lambda: JAX_FLOW.bits_per_dim(JAX_PIXELS, JAX_NOISE[:1])),
        ("zs: expected a batch of", lambda: JAX_FLOW.decode(JAX_FLOW.draw_latents(KEY, 3) * 2)),
        ("n: expected a positive integer.*got 0", lambda: JAX_FLOW.sample(KEY, 0, np.float64(0.7))),
        ("mixing: expected one", lambda: ij.flows.Glow.init(KEY, (1, 4, 4), 1, 1, 4, mixing=None)),
        (r"use jax\.vmap", lambda: ij.init(jax.random.split(KEY), ic.Conv1x1, 2)),
        ("no float64", lambda: wide(False, lambda: ij.init(KEY, ic.ActNorm, 3, dtype="float64"))),
        ("cannot be saved:", lambda: ic.save(jax.tree.map(lambda a: a[None], JAX_ONE), "f")),
        ("path: expected the name of a file", lambda: ic.save(ONE, "")),
        (r"of one channel it is kernel\[None, None\]", lambda: ic.PeriodicConv(np.ones(5))),
        ("ndim: .* 64 at most, got 65", lambda: ic.Conv1x1(EYE, ndim=65)),
        ("ndim=3 makes it so many axes", lambda: ic.PeriodicConv.init(2, (3, 3, 3))),
        ("x: expected at least one pixel", lambda: PERIODIC.forward(X[:, :, :0])),
        (r"\(batch, 3, \*spatial\) .* any number of spatial axes, got", lambda: ONE.forward(ONES)),
        (r"\(\*batch, 3, \*spatial\) .* and 2 spatial", lambda: PERIODIC.forward(X[0, ..., 0].T)),
        (r"of one image it is x\[None\], or say ndim=2 when it is made", lambda: ONE.forward(X[0])),
        (r"by moveaxis\(x, -1, -3\)", lambda: PERIODIC.forward(X.transpose(0, 2, 3, 1))),
        (r"by moveaxis\(x, -1, 1\)", lambda: ONE.forward(X.transpose(0, 2, 3, 1))),
        (r"without its channel axis is y\[None\]", lambda: BLUR.inverse(X[0, 0])),
        (r"their channel axis are y\[\.\.\., None, :, :\]", lambda: BLUR.inverse(X[0])),
        (r"got 3: \(3, 3, 3\); EmergingConv3d takes so", lambda: it.EmergingConv2d(2, (3, 3, 3))),
        (r"got 4: \(3, 3, 3, 3\)", lambda: it.PeriodicConv2d(2, (3, 3, 3, 3))),
        ("a library that was not used", lambda: ic.extend.register_backend("numpy", adapter())),
        ("without dots, 'dask' of", lambda: ic.extend.register_backend("dask.array", np)),
        ("ndim: expected the number of spatial axes", lambda: TorchTransform(it.Conv1x1(3))),
        ("ndim: expected the operator's,", lambda: TorchTransform(it.EmergingConv2d(3), ndim=1)),
        ("conv: expected a layer that keeps", lambda: TorchTransform(it.Squeeze(), ndim=2)(ZS[1])),
        ("ndim: expected 0 or more", lambda: TorchTransform(it.Conv1x1(3), ndim=-1)),
        ("cache_size must be 0 or 1", lambda: TorchTransform(LAYER, ndim=0, cache_size=2)),
        ("expected shape", lambda: TorchTransform(it.EmergingConv2d(2))(torch.zeros(3, 3))),
        ("shape: expected one .*, got .*:", lambda: Flowjax(JAX_NORM, (3, 4))),
        ("shape: expected at least 1", lambda: Flowjax(JAX_NORM, (2, 0))),
        (r"shape: expected one .*: x: .* grid \(4, 4\)", lambda: Flowjax(JAX_CHAIN, (4, 5, 4))),
        ("f; change the kernel or the grid size$", lambda: stepped("mirror").inverse(Y[:, :1])),
        (r"size, or use least_squares\(y\), the", lambda: stepped("symmetric").inverse(Y[:, :1])),
    ],
    TypeError: [
        ("y: .* got complex128; pass its real", lambda: CORNER.inverse(X + 0j)),
        ("of numpy as kernel is, got .* torch;", lambda: CORNER.forward(torch.as_tensor(X))),
        ("bias: expected dtype float64 as kernel has,", lambda: ic.PeriodicConv(KERNEL, SMALL)),
        ("kernel_size: expected an integer, or 2 .* got", lambda: ic.PeriodicConv.init(1, {3, 5})),
        ("direction: expected an integer", lambda: corner(direction=1.0)),
        ("steps: expected a list of operators, got None", lambda: ic.Chain(None)),
        (r"Chain takes one list of steps: Chain\(\[a, b\]\)", lambda: ic.Chain(ONE, CORNER)),
        ("first: expected an AutoregressiveConv, got", lambda: ic.EmergingConv(PERIODIC, CORNER)),
        ("permutation: expected integers, got float64", lambda: plu(permutation=ONES)),
        ("permutation: expected an array of numpy as", lambda: plu(permutation=torch.arange(3))),
        ("ndim: .* got True", lambda: ic.Conv1x1(EYE, ndim=True)),
        ("kernel_size: .* got True", lambda: ic.PeriodicConv.init(2, (True, 3))),
        (r"steps\[1\].weight: .* float64 as", lambda: ic.Chain([ONE, ONE.asarrays(SMALL)])),
        ("weight: expected a real floating dtype", lambda: ic.Conv1x1(EYE.astype(int))),
        ("like: expected a real floating dtype", lambda: ONE.asarrays(S.astype(int))),
        ("conv: expected an InvertibleConv, got ndarray", lambda: ic.Inverse(EYE)),
        ("conv: expected an InvertibleConv, got tuple", lambda: ic.Inverse((ONE, ONE))),
        (r"tuple of integers such as .* got \{4, 5\}", lambda: CORNER.log_det({4, 5})),
        ("first: .* a tuple beside another", lambda: ic.EmergingConv((CORNER,), CORNER)),
        ("kernel: expected an array .* got NoneType", lambda: CORNER.replace(kernel=None)),
        ("rng: expected a numpy.random.Generator .* got", lambda: ic.EmergingConv.init(3, rng=0)),
        ("x: expected dtype float64 .*, got float32;", lambda: CORNER.forward(X.astype(">f4"))),
        ("x: expected a dense tensor, got a", lambda: ic.Conv1x1(torch.eye(3)).forward(NESTED)),
        ("x: expected a real floating dtype", lambda: ONE.forward(RECORDS)),
        (r"as is bfloat16 .*: NumPy has not\), got bfloat16", lambda: ONE.forward(BRAINS)),
        ("b: expected real numbers of NumPy, got bf", lambda: ic.lfilter(BRAINS, [1.0], S)),
        ("in a list, got one ActNorm", lambda: it.ReversibleChain(LAYER)),
        ("takes one list of layers", lambda: it.ReversibleChain(LAYER, LAYER)),
        ("x: expected a torch.Tensor, got ndarray", lambda: it.ReversibleChain([LAYER])(X)),
        ("key: expected a key such as .*,", lambda: ij.init(jax.numpy.arange(2), ic.ActNorm, 3)),
        ("cls: expected a class of invconv", lambda: ij.init(KEY, ic.Chain, 3)),
        ("come from the key", lambda: ij.init(KEY, ic.Conv1x1, 3, rng=RNG)),
        ("dtype= says", lambda: ij.init(KEY, ic.ActNorm, 3, like=jax.numpy.zeros(0))),
        ("dtype: expected a real floating", lambda: ij.init(KEY, ic.ActNorm, 3, dtype="int32")),
        (r"2d\(12, kernel_size=3\)", lambda: it.EmergingConv2d(12, 16)),
        (r"one number of channels.*3d\(8, k", lambda: it.PeriodicConv3d(8, 8)),
        ("one number of channels", lambda: it.SymmetricConv1d(12, 16)),
        ("one number of channels", lambda: it.ExponentialConv2d(12, 6)),
        ("one number of channels", lambda: it.PeriodicConv1d(12, 16, kernel_size=3)),  # type: ignore[misc]
        ("one number of channels", lambda: it.EmergingConv2d(3, 3, 3)),
        (r"EmergingConv.init\(12\) draws", lambda: ic.EmergingConv(12)),
        (r"PLUConv1x1.init\(3\) draws", lambda: ic.PLUConv1x1(channels=3)),
        (r"ZukoTransform\(layer\)", lambda: LAYER(None)),
        ("symbolic_trace, which sees no shapes; torch.exp", lambda: torch.fx.symbolic_trace(LAYER)),
        ("jit.script cannot compile ActNorm; torch.export.export", lambda: torch.jit.script(LAYER)),
        (r"got ActNorm; of a layer pass layer.operator\(\)", lambda: it.InvertibleModule(LAYER)),
        (r"got tuple; a layer returns \(z,", lambda: torch.nn.Sequential(LAYER, LAYER)(IMAGES)),
        ("x: expected an array without a mask.*filled", lambda: CORNER.forward(MASKED)),
        ("b: expected", lambda: ic.lfilter([torch.tensor(1.0, requires_grad=True)], [1.0], S)),
        ("psf: expected numbers, or", lambda: jax.jit(lambda p: ic.from_psf((p,)).kernel)(1.0)),
        ("penalty: .* InvertibleConv, got ndarray", lambda: BOX.least_squares(Y[:, :1], 1, S)),
        ("penalty.weight:", lambda: NORM.least_squares(Y, 1, ic.Conv1x1(PAIR.astype("f4")))),
        ("before: expected dtype", lambda: TALL.inverse(BLOCK, BLOCK[:, :, :2].astype("f4"))),
        ("which JAX has here", lambda: wide(False, lambda: ic.lfilter([1.0], [1.0, 0.5], JAX_X))),
        ("kernel: expected", lambda: wide(False, lambda: JAX_CORNER.log_det((4, 5)))),
        ("y: expected an array of jax", lambda: ij.channels_last(JAX_CORNER).inverse(X.T[..., 0])),
        ("noise: expected an", lambda: JAX_FLOW.bits_per_dim(JAX_PIXELS, np.asarray(JAX_NOISE))),
        ("before: expecte", lambda: TALL.prepare((4, 5)).inverse(BLOCK, torch.zeros((2, 1, 2, 5)))),
        ("before: expected none, since only .* for PeriodicConv", lambda: READY.inverse(X, X)),
        ("axes: expected an integer, got ''", lambda: ic.spline_filter(S, axes="")),
        ("offsets: expected a sequence of tuples.*,", lambda: ic.propagate(Y, Y[:, :, None], 3)),
        ("offsets: expected an integer, got 1.5", lambda: ic.propagate(Y, Y[:, :, None], [(1.5,)])),
        ("axis: expected an integer, got 0.0", lambda: ic.lfilter([1.0], [1.0], S, 0.0)),
        ("shape: expected an integer, got 4.0", lambda: ic.aslinearoperator(PERIODIC, (4.0, 5))),
        ("conv: .* got PreparedInverse; pass its", lambda: ic.aslinearoperator(READY, (4, 5))),
        ("kernel: expected an", lambda: ic.aslinearoperator(PERIODIC.asarrays(IMAGES), (4, 5))),
        ("chain: expected an invconv.Chain, got list", lambda: ij.reversible([], (4,))),
        ("spatial_shape: expected a tup", lambda: ij.reversible(JAX_ONE, 4)),
        ("an InvertibleConv or a layer that holds one, got", lambda: ic.diagnose(Flip(), (4, 4))),
        ("like: expected a real floating dtype", lambda: ic.load(kept(ONE), like=S.astype(int))),
        ("b: expected a real .* got int64", lambda: ic.lfilter_zi(torch.ones(1).long(), [1])),
        ("path: expected the name of a file", lambda: ic.load(3)),
        ("got ReLU at level0_step0_mixing", lambda: glow(lambda channels: torch.nn.ReLU())),
        ("zs: expected a tuple of .*got Tensor", lambda: FLOW.decode(ZS[0])),
        ("zs: expected .* real", lambda: FLOW.decode([z.to(int) for z in ZS])),
        ("x: expected a real .*got uint8", lambda: FLOW.encode(PIXELS)),
        ("expected a torch.Tensor, got nd", lambda: FLOW.encode(NOISE.numpy())),
        ("images: expected a torch.Tensor, got nd", lambda: it.flows.Dequantize()(PIXELS.numpy())),
        ("x: expected a torch.Tensor, got", lambda: it.flows.Dequantize().inverse(NOISE.numpy())),
        ("x: expected a torch.Tensor, got nd", lambda: it.flows.Split(2)(ZS[0].numpy())),
        ("expected modules .* in a list,", lambda: it.flows.Multiscale((1, 4, 4), it.ActNorm(1))),
        ("invconv_jax.init takes a key", lambda: ic.EmergingConv.init(2, rng=KEY)),
        (r"PeriodicConv.__init__\(\) got an unexpected", lambda: it.PeriodicConv2d(2, padding=1)),
        (r"call layer.double\(\) or x.float\(\)", lambda: LAYER(IMAGES.double())),
        (r"call layer.double\(\) or z.float\(\)", lambda: LAYER.inverse(IMAGES.double())),
        (r"Chain\(\[layer.operator\(\) for layer in ...\]\)", lambda: ic.save([LAYER], "f")),
        ("module: expected a", lambda: ic.extend.register_backend("dask", ic.extend.ArrayOps)),
        ("ARRAY_OPS to be", lambda: ic.extend.register_backend("unused", adapter(ARRAY_OPS=int))),
        ("ndim: expected a number of spatial", lambda: TorchTransform(it.Conv1x1(3), ndim=2.0)),
        ("conv: expected an operator of invconv,", lambda: ij.interop.DistraxBijector(3, ndim=1)),
        ("conv: expected an operator", lambda: Flowjax(3, (2, 4))),
        ("conv: expected an operator", lambda: ij.interop.BijxBijection(3, ndim=1)),
        ("conv: expected an operator", lambda: ij.interop.NumpyroTransform(3, ndim=1)),
        ("shape: expected", lambda: Flowjax(JAX_NORM, 5)),
    ],
    AttributeError: [
        (
            "'EmergingConv2d'; layers .* in invconv_torch",
            lambda: vars(ic)["__getattr__"]("EmergingConv2d"),
        ),
    ],
    ic.InvalidFileError: [("not an ordinary file", lambda: ic.load([kept(ONE), "."][1]))],
}
JUST_RIGHT: list[Callable[[], Any]] = [
    lambda: (ic.bounded(ONE, 1e300), ic.bounded(ONE, 1 + 1e-09)),
    lambda: (ic.filtfilt([1.0], [1.0], S, padlen=7), ic.from_psf([0.2, 1, 0.2 + 8e-07])),
    lambda: (ic.lfilter([1.0], [1e-300, 1.0], S), ic.load(kept(ONE.asarrays(BRAIN.half())))),
    lambda: ic.load(kept(ic.ActNorm(FAR / 10, None)), SMALL),
    lambda: (ic.propagate(X, TAPS[:, :, 1:], [(-1, 2), (1, 1)]), ic.map_coordinates(S, [[1.0]], 5)),
    lambda: ic.richardson_lucy(BLUR, X[:, :1], background=1),
    lambda: ic.richardson_lucy(BLUR, X[:, :1], iterations=1),
    lambda: (ic.save(ic.Chain([ONE] * 2000), "f"), ic.save(DEEP, "f")),
    lambda: (ic.sosfilt(TWO[:1], S, zi=S[None, :2]), ic.sosfiltfilt(TWO[:1], S, padlen=0)),
    lambda: (ic.spline_filter(S, 5), GROWING(torch.zeros(1, 1, 3))),
    lambda: FLOW.log_prob(torch.full_like(NOISE, 0.999)),
    lambda: (ij.reversible(ic.Chain([LOSES]), (4, 4)), CORNER.log_det((2**31 - 1, 5))),
    lambda: (ic.PeriodicConv(KERNEL, dilation=2**30), plu(permutation=np.asarray([0, 2, 1]))),
    lambda: plu(sign=np.asarray([1.0, -1.0, 1.0])),
    lambda: (ic.squeeze(np.ones((1, 1, 6, 6)), 3, basis="dct"), it.Conv1x1(3, max_gain=1.1)),
    lambda: (ic.propagate(X, TAPS, [(1, 0), (-1, 1), (0, 1)]), ic.sosfilt(TWO, S, zi=PAIR[:2])),
    lambda: ic.lfilter([1.0], [1.0, 0.5], EYE, zi=EYE[:3, :1]),
    lambda: (ic.lfilter([1.0], [1, 0.5, 0.2], S, zi=S[:2]), ic.from_psf(ONES, boundary="odd")),
    lambda: ic.from_psf([[1, -2, 1]], boundary=("periodic", "zero")),
    lambda: ic.from_psf(SKEW[:1], boundary=["odd"]),
    lambda: (ic.from_psf(EDGE, boundary=("periodic", "odd")), ic.from_psf(EYE[[1]], boundary=RING)),
    lambda: ic.from_psf([-1, 2, -1], boundary="odd"),
    lambda: ic.from_psf([100, -300, 200 + 2e-12], boundary="periodic"),
    lambda: ic.from_psf([0.0] * 5 + [1, 1] + [0] * 2, boundary="periodic"),
    lambda: (ic.spline_filter(S, mode="grid-wrap"), ic.map_coordinates(S, [[1]], mode="grid-wrap")),
    lambda: (ic.map_coordinates(S, [[1.0]], cval=0), ic.map_coordinates(S[:1], [[1.0]])),
    lambda: BOX.least_squares(Y[:, :1], np.finfo(float).max),
    lambda: (BOX.least_squares(Y[:, :1], np.asarray(1.0)), GROWN.least_squares(SMALL[None], 1e38)),
    lambda: NORM.least_squares(Y, 1, ic.Conv1x1(PAIR, ndim=1)),
    lambda: (ic.aslinearoperator(PERIODIC, (1, 4)), it.InverseGuard(LAYER, (4,), digits=0)),
    lambda: (ij.InverseGuard(JAX_NORM, (4,), every=2**31 - 1), glow(shape=(1, 8, 4))),
    lambda: (glow(levels=1), glow(squeeze="dct"), glow(scale_floor=0.9), glow(scale_floor=0.0)),
    lambda: (glow(context=1), glow(context=None, reversible=True), glow(mixing=it.PeriodicConv2d)),
    lambda: (it.flows.Multiscale((3, 2, 2), {"1": LAYER, -1: LAYER}), it.Squeeze(1)),
    lambda: JAX_FLOW.sample(KEY, 1, np.float64(0.7)),
    lambda: (ij.init(jax.random.split(KEY)[0], ic.Conv1x1, 2), ic.Conv1x1(EYE, ndim=64)),
    lambda: (ic.PeriodicConv.init(2, (3, 3, 3), ndim=3), PERIODIC.forward(X[0, ..., :])),
    lambda: (ONE.forward(X[0][None]), ic.extend.register_backend("unused", adapter())),
    lambda: (TorchTransform(it.Conv1x1(3), ndim=0), TorchTransform(LAYER, ndim=0, cache_size=1)),
    lambda: (Flowjax(ij.channels_last(JAX_NORM), (4, 2)), Flowjax(JAX_CHAIN, (4, 4, 4))),
    lambda: (stepped("odd").inverse(Y[:, :1]), CORNER.inverse(X.astype(float))),
    lambda: (ic.PeriodicConv.init(2, (1, 3)), CORNER.log_det({4: 4, 5: 5}.values())),
    lambda: (CORNER.log_det(PAIR[0].astype(int)), CORNER.forward(X.astype(">f8"))),
    lambda: (ONE.forward(RECORDS.a), ic.propagate(Y, Y[:, :, None], [(3,)])),
    lambda: (ic.lfilter_zi([1], [1]), FLOW.bits_per_dim(PIXELS), LAYER(IMAGES)),
]


@functools.cache
def promises() -> dict[str, dict[str, str]]:
    """Return, by public names, the kinds of errors that docstrings promise, and when."""
    found: dict[str, dict[str, str]] = {}
    for package in map(import_module, PACKAGES):
        for own in (getattr(package, name) for name in package.__all__):
            members = [getattr(own, n) for n in dir(own) if isinstance(own, type) and n[0] != "_"]
            for one in (own, *filter(callable, members)):
                text = (inspect.getdoc(one) or "").partition("\nRaises\n------\n")[2]
                items = re.findall(r"^(\w.*)\n((?: +.*\n?)+)", text.partition("\n\n")[0], re.M)
                if items:
                    name = f"{one.__module__.partition('.')[0]}.{one.__qualname__}"
                    found[name] = {kinds: " ".join(when.split()) for kinds, when in items}
    return found


LATE = "invconv_jax.Glow.initialize"  # to compile
EACH = [
    slow(of, *case) if of == LATE else (of, *case) for of, cases in CASES.items() for case in cases
]


@pytest.mark.parametrize("name", promises())
def test_every_promise_has_a_case(name: str) -> None:
    """Each clause of the first sentence of a docstring's "Raises", that is, has one."""
    aside = r"\(.*?\)|,? on a CPU[^,]*|, (and|with|so that) [^,]*|Unless .*|With .*"
    whens = [re.sub(aside, "", when.partition(". ")[0]) for when in promises()[name].values()]
    clauses = [one for when in whens for one in re.split(r", or |, | or |,", when) if one.strip()]
    assert len(CASES[name]) >= len(clauses)


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize(("of", "message", "call"), EACH)
def test_it_is_raised(of: Any, message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(Exception, match=message) as caught:
        call()
    kinds = ", ".join(promises()[of]).split(", ") if isinstance(of, str) else [of.__name__]
    assert {kind.__name__ for kind in type(caught.value).__mro__} & {*kinds}
    assert not Path("f").exists()
    assert threads.number == 1  # whatever number was refused


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize("call", JUST_RIGHT)
def test_what_is_just_right_is_not_refused(call: Callable[[], Any]) -> None:
    call()


def test_a_pointwise_layer_of_torch_takes_ndim() -> None:
    images = torch.as_tensor(X)
    for ndim, x in ((2, images), (0, images[:, :, 0, 0])):
        layers: list[Any] = [it.Conv1x1(3, name, ndim=ndim) for name in ("plain", "plu")]
        layers += [it.ActNorm(3, ndim=ndim), *[it.Squeeze(1)] * bool(ndim)]
        for layer in (layer.double() for layer in layers):
            for run in (layer, layer.inverse, layer.eval().inverse):
                z, log_det = run(x)
                torch.testing.assert_close(run(x[0]), (z[0], log_det[0]))  # without a batch axis
                torch.testing.assert_close(run(x[None]), (z[None], log_det[None]))


def test_numpys_numbers_and_words_are_settings() -> None:
    kernel, words = KERNEL[..., :1, :1], map(np.str_, ("raster", "upper", "mirror", "zeros"))
    mask, order, border, padding = words
    numbers: Any = {"direction": np.int8(-1), "dilation": (np.int64(2), 1)}
    conv = ic.AutoregressiveConv(kernel, mask=mask, channel_order=order, **numbers)
    said = "mask='raster', direction=(-1, -1), channel_order='upper', dilation=(2, 1))"
    assert repr(conv).endswith(said)
    for other in (
        ic.SymmetricConv(kernel, boundary=(border, "odd")),
        ic.ExponentialConv(kernel, padding=padding),
        ic.ActNorm(np.zeros(3), None, ndim=np.int8(2)),
    ):
        assert not re.search(r"np\.|str|int", repr(other))  # those of arrays without axes


@pytest.mark.parametrize("case", cases_named(*ONE_OF_EACH), ids=lambda case: case.name)
def test_stacked_operators_are_not_taken_for_one(case: Case) -> None:
    """Three of 3 channels look like one of a further axis in many ways."""
    x, grid = jax.numpy.asarray(case.images(1)[0]), case.spatial_shape
    conv = ic.Inverse(case.conv()).asarrays(x)
    for count in (2,) if "symmetric" in case.name else (2, 3):  # of whose kernel that is true
        stacked = jax.tree.map(lambda a, n=count: jax.numpy.stack([a] * n), conv)
        for one in (stacked, stacked.conv):
            calls = (one.forward, x), (one.inverse, x), (one.log_det, grid), (one.prepare, grid)
            reversible = Reversible(ic.Chain([one]), grid).forward_and_log_det
            wrapped = (ij.channels_last(one).forward, x), (reversible, x)
            for function, argument in (*calls, *wrapped):
                with pytest.raises(ValueError, match=r"one axis more, .* call it under jax.vmap"):
                    function(argument)


@pytest.mark.parametrize("cls", [cls for cls in OWN if hasattr(cls, "init")])
def test_without_a_generator_init_draws_anew(cls: Any) -> None:
    one, other = (cls.init(16).parameters() for _ in range(2))
    assert all(np.isfinite(a).all() for a in one.values())
    drawn = [n for n in one if not np.array_equal(one[n], other[n])]
    assert drawn or cls is ic.ActNorm  # which begins at the identity


FOREIGN = np.dtype(float).newbyteorder()  # as a file of FITS has it


@pytest.mark.parametrize("cls", [ic.AutoregressiveConv, ic.PeriodicConv, ic.CirculantConv1x1])
def test_arrays_in_a_foreign_byte_order(cls: Any) -> None:
    """An operator's are the machine's, a result is as its argument; the law "layout" has values."""
    conv, x = cls.init(3, rng=RNG, like=np.empty(0, FOREIGN)), X.astype(FOREIGN)
    assert {p.dtype for p in conv.parameters().values()} == {np.dtype(float)}
    pulled = conv.forward_vjp(x, x)[1], conv.inverse_vjp(x, x)[1]
    assert {a.dtype for a in (conv.forward(x), conv.inverse(x), *pulled)} == {FOREIGN}
