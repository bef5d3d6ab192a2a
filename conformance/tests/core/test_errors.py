"""Wrong and odd input: each error is of its kind, says what was expected, what came and what to do.

What every operator refuses alike (grids, channels, dtypes, devices, cotangents) is in the laws
"errors", "no_promotion" and "no_transfer"; here is what single classes and functions refuse. A call
is written with what is wrong in it and what is right beside it, «wrong → right»: one raises, the
other does not. «a | b → right» are two calls, with the first and the second of every bracket.
"""

import functools
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

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
LOSES = turned(3.67, 0.272)  # a digit
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


# a public name: what its docstring promises, in its words -> how the message reads -> a call;
# or a kind of error: its message -> a call
TABLE = r"""
invconv.ActNorm.initialize
  «a channel is constant | not finite» -> x: expected images that vary
      -> ActNorm.init(3).initialize(X«*0 + 0.1 | *np.nan → »)
invconv.Chain.initialize
  a channel that reaches an actnorm is constant -> step 1: x: expected images that vary
      -> Chain([ONE, ActNorm.init(3)]).initialize(X«*0 → »)
  not finite -> step 1: x: expected images that vary
      -> Chain([ONE, ActNorm.init(3)]).initialize(X«*np.nan → »)
invconv.InvertibleConv.«inverse | prepare»
  the operator has a zero pivot -> Conv1x1 is exactly singular on a grid of 4 x 5
      -> Conv1x1(EYE«*0 → »).«inverse(X) | prepare((4, 5))»
invconv.least_squares
  As `inverse` -> y: expected shape -> BOX.least_squares(Y«→ [:, :1]»)
  K is not finite -> kernel: expected finite numbers -> «NANS → BOX».least_squares(Y[:, :1])
  «``damp`` is negative | not finite»
      -> damp: expected a finite number of at least 0, got «-1 | nan»
      -> BOX.least_squares(Y[:, :1], «-1.0 | np.nan → 0.1»)
  ``penalty`` is no operator of the same waves -> penalty: expected an operator that the waves
      -> BOX.least_squares(Y[:, :1], 1, «NORM → STEP»)
invconv.PreparedInverse.least_squares
  an operator that has no `least_squares` -> least_squares: expected a periodic, .* got Emerging
      -> «EMERGING → PERIODIC».prepare((4, 5)).least_squares(X)
invconv.ExponentialConv
  the kernel has an even size along an axis, and thus no centre
      -> kernel: expected an odd size .*\(3, 2\) -> ExponentialConv(np.zeros((1, 1, 3, «2 → 1»)))
invconv.SymmetricConv
  it is called with one of odd sizes, largest in the middle, that is not even
      -> kernel: expected the part of an even kernel from its centre on, .* not even
      -> SymmetricConv(np.asarray([[[1.0, 4.0, 2.0«→ , 0»]]]))
invconv.bounded
  an operator without such a parametrisation -> whose class bounds its inverse, got Inverse; bound
      -> bounded(«Inverse(ONE) → ONE», 10.0)
  ``max_gain`` is finite -> max_gain: expected a finite number above 1
      -> bounded(ONE, «float('inf') | np.float32('inf') | np.nan | 10**400 | '10' → 1e300»)
  more than 1, by 1e-9 at least -> max_gain: expected a finite number above 1
      -> bounded(ONE, «0.5 | 1.0 | np.float32(1) | 1 + 1e-12 | 1 + 1e-10 → 1 + 1e-9»)
invconv.damp_for_noise
  the operator has no `least_squares` -> conv: expected an operator with least_squares, .* Emerging
      -> damp_for_noise(«EMERGING → PERIODIC», X, 0.1)
  «``sigma`` is not positive | finite»
      -> sigma: expected a finite number above 0, got «0; without | inf»
      -> damp_for_noise(NORM, Y, «0 | np.inf → 0.8»)
  ``mask`` does not fit y -> mask: expected an array that broadcasts to the shape of y
      -> damp_for_noise(NORM, Y, 0.8, mask=np.ones(«3 → 8»))
  is False throughout -> mask: expected some entries of y
      -> damp_for_noise(NORM, Y, 0.8, mask=S«→+1»)
  no damp fits: y is no larger than its noise
      -> sigma: expected less noise .*, got 1, .* deviation of 1:
      -> damp_for_noise(NORM, Y, «1.0 → 0.8»)
  K is singular and no x comes so close to y -> sigma: expected at least 0.707, .* rounding, got 0.5
      -> damp_for_noise(NORM, Y, «0.5 → 0.8»)
invconv.diagnose
  the grid does not fit the operator -> expected 2 spatial axes -> diagnose(CORNER, (4, «→ 4»))
  it cannot run in the dtype -> dtype: expected float32, float64
      -> diagnose(CORNER, (4, 4), '«int32 → float32»')
invconv.filtfilt
  As `lfilter` -> b: expected real numbers, got complex128 -> filtfilt([«1j → 1.0»], [1.0], S)
  x is not longer than ``padlen`` -> x: expected more than 8 samples along axis 0
      -> filtfilt([1.0], [1.0], S, padlen=«8 → 7»)
invconv.from_psf
  a size is even -> psf: expected odd sizes, .* got \(2, 3\) -> from_psf(np.ones((«2 → 3», 3)))
  h is not centred -> psf: expected its centre in the middle, at 1 -> from_psf(EYE[«0 → 1»])
  not even where it has to be -> differs from its flip .* boundary="periodic"
      -> from_psf([0.2, 1, 0.2 + «4e-6 → 8e-7»])
  not finite -> psf: expected finite numbers -> from_psf([1.0, «np.nan → 3», 1])
  its sum is zero: the mean of an image would be lost
      -> psf: expected a sum other than zero, .* boundary="odd" .* PeriodicConv\(kernel\).least
      -> from_psf([[1, 3, 1], [1.0, -«2 → 3», 1]], boundary=['mirror'])
invconv.lfilter
  an array is complex -> b: expected real numbers, got complex128 -> lfilter([«1j → 1.0»], [1.0], S)
  of another library -> b: expected an array of numpy -> lfilter(«torch → np».ones(1), [1.0], S)
  a[0] is zero -> a: expected a\[0\] other than zero -> lfilter([1.0], [«0.0 → 1e-300», 1.0], S)
  shapes do not fit -> b, a: expected axes .* that broadcast to \(1,\)
      -> lfilter(np.ones((«2, → »1)), [1.0], S[None])
invconv.lfilter_zi
  As `lfilter` -> a: expected a\[0\] other than zero -> lfilter_zi([1.0], [«0.0 → 0.1», 1.0])
  the sum of a is zero: then there is no such state -> a: expected a sum other than zero
      -> lfilter_zi([1.0], [1.0, «-1 → 1»])
invconv.SpectralConv.spectrum
  this is no grid of the operator -> expected 2 spatial axes -> PERIODIC.spectrum((4,«→4»))
invconv.SpectralConv.funm
  As `forward` -> x: expected shape -> BLUR.funm(np.exp, X«→ [:, :1]»)
  there are several channels -> kernel: expected one channel for funm, got 3
      -> «PERIODIC → BLUR».funm(np.exp, X[:, «: → :1»])
  the kernel is not even, so that eigenvalues are not real -> kernel: expected an even one
      -> «BOX → PeriodicConv(np.ones((1, 1, 1)))».funm(np.exp, S[None])
  f gives no real and finite number for each of them -> f: expected «a number | finite numbers»
      -> BLUR.funm(lambda k: «k[:1] | np.log(-k) → k», X[:, :1])
invconv.load
  `save` did not write the file -> no whole safetensors file -> load(«__file__ → kept(ONE)»)
  it is damaged -> no whole safetensors file -> load(kept(ONE, «-1 → None»))
  the file holds bfloat16 -> like: .*kept holds bfloat16, which NumPy
      -> load(kept(ONE.asarrays(torch.zeros(0, dtype=torch.«bfloat16 → float16»))))
  a flow, and ``like`` is not given or of NumPy -> like: .* holds a flow, and numpy has none
      -> load(kept(FLOW), «S → torch.zeros(0)»)
  a number in the file is beyond the range of ``like``'s dtype
      -> like: .*log_scale, up to 1e\+39, got float32
      -> load(kept(ActNorm(np.asarray([-1e«39 → 38», 1.0]), None)), SMALL)
  the file cannot be read; FileNotFoundError if it does not exist -> nowhere
      -> load(«'nowhere' → kept(ONE)»)
invconv.propagate
  shapes -> taps: expected the shape \(1, 2, 1, 8\), or 1 for the first 2 sizes: one tap for each
      -> propagate(Y, np.ones((1, 1, «2 → 1», 8)), [(-1,)])
  libraries -> taps: expected an array of numpy
      -> propagate(Y, «torch → np».ones((1, 1, 1, 8)), [(-1,)])
  dtypes do not fit -> gain: expected dtype float64 as x has, got float32
      -> propagate(Y, Y[:, :, None], [(-1,)], Y.astype('float«32 → 64»'))
  or two offsets contradict each other -> earlier; \(-1, 2\) and \(1, -1\) contradict each other
      -> propagate(X, X[:, :, None][:, :, [0, 0]], [(-1, 2), (1, «-1 → 1»)])
invconv.unpropagate
  As `propagate` -> offsets: .* other than the own one, got \(0,\); .* 1 - tap
      -> unpropagate(Y, Y[:, :, None], [(«0 → 1»,)])
invconv.map_coordinates
  an array is not real and floating -> x: expected a real floating dtype
      -> map_coordinates(S.astype(«int → float»), [[1.0]])
  of another library -> coordinates: expected an array of numpy
      -> map_coordinates(S, «torch → np».ones((1, 2)))
  an argument is none of these -> order: expected an integer from 0 to 5, got 6
      -> map_coordinates(S, [[1.0]], «6 → 5»)
invconv.richardson_lucy
  As `forward` -> y: expected shape -> richardson_lucy(BLUR, X«→ [:, :1]»)
  ``mask``, -> mask: expected an array that broadcasts
      -> richardson_lucy(BLUR, X[:, :1], mask=np.ones(«3 → 5»))
  ``sigma`` does not broadcast against y, -> sigma: expected an array that broadcasts
      -> richardson_lucy(BLUR, X[:, :1], sigma=np.ones(«3 → 5»))
  ``background`` is negative or not finite, -> background: expected a finite number of at least 0
      -> richardson_lucy(BLUR, X[:, :1], background=«-1 | np.inf → 1»)
  ``background`` -> background: expected an array that broadcasts
      -> richardson_lucy(BLUR, X[:, :1], background=np.ones(«3 → 5»))
  ``sigma`` is not positive -> sigma: expected a finite number above 0, got 0
      -> richardson_lucy(BLUR, X[:, :1], sigma=«0 → 1»)
  ``iterations`` is less than 1 -> iterations: expected a positive integer
      -> richardson_lucy(BLUR, X[:, :1], iterations=«0 → 1»)
invconv.save
  ``model`` is none of these -> model: expected an InvertibleConv or a layer that holds one, got nd
      -> save(«EYE → ONE», 'f')
  its class has been defined again since -> of the class Defined as it is defined now
      -> save([defined(), defined()][«0 → 1»], 'f')
  «an array holds NaN | inf» -> log_scale: expected finite numbers
      -> save(ActNorm(np.asarray([0.0, «np.nan | np.inf → 1»]), None), 'f')
  there are too many -> 18000 arrays are more than -> save(Chain([ONE] * «18000 → 2000»), 'f')
  too deeply nested operators -> nested .* deep at most -> save(«TOO_DEEP → DEEP», 'f')
  a flow's mixing is a function -> its mixing is a function, which no file describes
      -> save(glow(«lambda c: it.Conv1x1(c) → 'plain'»), 'f')
  its layers were changed -> cannot be saved.* expected level0_step0_mixing: Per
      -> save(«other('level0_step0_mixing') → FLOW», 'f')
  the file cannot be written -> no such folder -> save(ONE, '«nowhere/ → »f')
invconv.set_num_threads
  «``n`` is not an integer | is less than 1»
      -> a positive «integer | integer up to 2147483647», got «1.5 | 0»
      -> set_num_threads(«1.5 | 0 → 1»)
invconv.sosfilt
  As `lfilter` -> a: expected a\[0\] other than zero -> sosfilt([[1.0, 0, 0, «0 → 1», 1, 0]], S)
  ``sos`` -> sos: expected the shape \(..., sections, 6\) -> sosfilt([[1.0, 0, 0, 1, 0«→, 0»]], S)
  ``zi`` has another shape -> zi: expected 1 states, .* got \(8,\)
      -> sosfilt(TWO[:1], S, zi=«S → S[None, :2]»)
invconv.sosfilt_zi
  As `sosfilt` -> sos: expected the shape -> sosfilt_zi([[1.0, 0, 0, 1, 0«→, 0»]])
  `lfilter_zi` -> a: expected a sum other than zero -> sosfilt_zi([[1.0, 0, 0, 1, «-1 → 1», 0]])
invconv.sosfiltfilt
  As `sosfilt` -> sos: expected the shape -> sosfiltfilt([[1.0, 0, 0, 1, 0«→, 0»]], S)
  `filtfilt` -> padlen: expected 0 or more, got -1 -> sosfiltfilt(TWO[:1], S, padlen=«-1 → 0»)
invconv.spline_filter
  x is not real -> x: expected a real .* real and imaginary part -> spline_filter(S«+1j → »)
  floating -> x: expected a real floating dtype -> spline_filter(S.astype(«int → float»))
  an argument is none of these -> order: expected an integer from 2 to 5, got 6
      -> spline_filter(S, «6 → 5»)
invconv_torch.InvertibleModule.initialize
  a channel is constant -> x: expected images that vary
      -> it.ActNorm(3).initialize(torch.«zeros → rand»(2, 3, 4))
  not finite -> x: expected images that vary -> it.ActNorm(3).initialize(torch.rand(2, 3, 4)«/0 → »)
  a parametrization has no ``right_inverse`` -> expected parameters named log_scale, which
      -> «clipped() → it.ActNorm(3)».initialize(torch.rand(2, 3, 4))
invconv_torch.ActNorm.initialize
  a channel is constant -> x: expected images that vary
      -> it.ActNorm(3).initialize(torch.«zeros → rand»(2, 3, 4))
  not finite -> x: expected images that vary -> it.ActNorm(3).initialize(torch.rand(2, 3, 4)«/0 → »)
  a parametrization has no ``right_inverse`` -> expected parameters named log_scale, which
      -> «clipped() → it.ActNorm(3)».initialize(torch.rand(2, 3, 4))
invconv_torch.lfilter
  As `invconv.lfilter` -> a: expected a\[0\] other than zero
      -> it.audio.lfilter(IMAGES, IMAGES[0, 0, 0]«→ + 1», IMAGES[0, 0, 0])
  waveforms and filters are not as many -> waveform: expected the shape \(..., 3, time\)
      -> it.audio.lfilter(IMAGES[:, «:2 → :», 0], torch.ones(3, 2), torch.ones(3, 1))
invconv_torch.deemph_biquad
  another ``sample_rate`` -> sample_rate: expected one of 44100, 48000, got 8000
      -> it.audio.deemph_biquad(IMAGES, «8000 → 48000»)
invconv_torch.riaa_biquad
  ``sample_rate`` is 44100, 48000, 88200 or 96000 -> sample_rate: expected one of 44100, .* 8000
      -> it.audio.riaa_biquad(IMAGES, «8000 → 96000»)
invconv_torch.Chain
  ``layers`` is empty -> layers: expected modules .* got none -> it.Chain([«→ LAYER»])
  an object that is no such module -> layers: expected modules with forward.* Linear at 1
      -> it.Chain([LAYER, «torch.nn.Linear(3, 3) → LAYER»])
invconv_torch.Chain.operator
  a layer holds no operator, as `Squeeze` and couplings
      -> such as EmergingConv2d, got «Squeeze | Flip» at 0
      -> it.«Chain | ReversibleChain»([«it.Squeeze() | Flip() → LAYER»]).operator()
invconv.InverseGuard.step
  the model has no layers -> model: expected an operator or .* got list without any
      -> ij.InverseGuard(JAX_NORM, (4,)).step(«[1] → JAX_NORM»)
  none with a grid -> layers have run under the guard, got None
      -> it.InverseGuard(LAYER«→, (4,)»).step(LAYER)
  is traced -> model: expected values, got a traced ActNorm
      -> «jax.jit → »(ij.InverseGuard(JAX_NORM, (4,)).step)(JAX_NORM)
invconv_torch.ReversibleChain.forward
  a layer's inverse cannot be right on this grid, with the layer's name
      -> layer 0: expected an inverse that can be trusted
      -> it.ReversibleChain([it.InvertibleModule(GROWS)])(torch.zeros(1, 1, «30 → 3»))
invconv_torch.load
  As `invconv.load` -> no whole safetensors file -> it.load(kept(LAYER, «-1 → None»))
invconv_torch.Dequantize.forward
  the images are not in uint8 -> images: expected pixels in uint8, got int32
      -> Dequantize()(PIXELS«.int() → », NOISE)
  «the noise has another shape | no real dtype | numbers out of range»
      -> noise: expected «the shape of | a real floating | numbers in \[0, 1\), got numbers»
      -> Dequantize()(PIXELS, NOISE«[1:] | .int() | + 1.5 → »)
invconv_torch.Dequantize.inverse
  a number is NaN -> x: expected numbers, got NaN, which is no pixel
      -> Dequantize().inverse(NOISE«*np.nan → »)
  the numbers are not real -> x: expected a real floating dtype .* got uint8
      -> Dequantize().inverse(«PIXELS → NOISE»)
invconv_torch.Multiscale.initialize
  the flow is initialized already -> initialized already -> «FLOW → glow('plain')».initialize(NOISE)
  a channel is constant -> layers.level0_step0_actnorm -> glow('plain').initialize(NOISE«*0 → »)
  not finite -> x: expected -> glow('plain').initialize(NOISE«*np.nan → »)
invconv_torch.Multiscale.log_prob
  the images have another shape -> x: expected shape -> FLOW.log_prob(torch.rand(3, 1, 4, «8 → 4»))
  leave the range -> x: expected images in \[0, 1\), got numbers from
      -> FLOW.log_prob(torch.full_like(NOISE, «1.0 → 0.999»))
invconv_torch.Multiscale.prepare
  a layer is singular -> exactly singular
      -> Multiscale((1, 4, 4), [it.InvertibleModule(Conv1x1(PAIR[:1, :1]«*0 → »))]).prepare()
invconv_torch.Multiscale
  a layer does not take the output of the layer before it; the message names the layer -> layers: 1
      -> Multiscale((1, 4, 4), [it.ActNorm(1), it.ActNorm(«2 → 1»)])
invconv_jax.load
  As `invconv.load` -> no whole safetensors file -> ij.load(kept(JAX_ONE, «-1 → None»))
  JAX has no such dtype here -> jax_enable_x64 -> wide(«False → True», lambda: ij.load(kept(ONE)))
invconv_jax.reversible
  ``chain`` is no chain of JAX arrays -> chain: expected arrays of JAX, got .* numpy as 0.weight
      -> ij.reversible(«Chain([ONE]) → JAX_ONE», (4,))
  is traced, so that its values are not known -> got a traced 0.weight; call this
      -> «jax.jit → »(lambda c: ij.reversible(c, (4,)).chain)(JAX_ONE)
  the inverse of a step -> steps\[0\]: expected an inverse
      -> ij.reversible(Chain([GROWS.asarrays(JAX_NOISE)]), («30 → 3»,))
  of the chain cannot be right on this grid; the message has the step's number
      -> chain: expected an inverse
      -> ij.reversible(Chain([LOSES.asarrays(JAX_NOISE)] * «6 → 1»), (4, 4))
invconv_jax.Glow.initialize
  the flow is initialized already -> initialized already
      -> JAX_FLOW«.initialize(JAX_NOISE) → ».initialize(JAX_NOISE)
  a channel is constant -> expected images that vary -> JAX_FLOW.initialize(JAX_NOISE«*0 → »)
  not finite -> x: expected -> JAX_FLOW.initialize(JAX_NOISE«*np.nan → »)
invconv_jax.Glow.log_prob
  the images have another shape -> x: expected shape \(B, 1, 4, 4\)
      -> JAX_FLOW.log_prob(JAX_NOISE«[:, :, :2] → »)
  leave the range -> x: expected images in \[0, 1\), got numbers from
      -> JAX_FLOW.log_prob(JAX_NOISE - «2 → 0»)
invconv_conformance.check_operator
  With the law, the output, the grid, the error and its bound, and the methods to look at
      -> Conv1x1, numpy float64: forward.value, .* on the grid .*bound .*; look at factors or apply
      -> import_module('invconv_conformance').check_operator(Conv1x1(2*EYE), EYE*«3 → 2»)
  the operator or the matrix is singular on the grid -> conv: expected an invertible .* of rank 0
      -> import_module('invconv_conformance').check_operator(Conv1x1(EYE*«0 → 2»))
  to rounding in float64 -> matrix: expected an invertible .* of rank 40 of 60 on the grid \(4, 5\)
      -> import_module('invconv_conformance').check_operator(Conv1x1(2*EYE), 2*«GAP → EYE»)
ValueError
  spatial_shape: expected at least one pixel along every spatial axis
      -> import_module('invconv_conformance').check_operator(Conv1x1(EYE), spatial_shape=(«0 → 1»,))
  precision: expected 'float64', got 'auto' -> CORNER.prepare((4, 5), precision='«auto → float64»')
  norm: expected 1 or inf, or None, got «2 | array»
      -> CORNER.condition((4, 5), norm=«2 | ONES → 1»)
  one pixel .* at most, got -> CORNER.log_det((2**31«→ - 1», 5))
  kernel_size: expected odd sizes, .* got 4 -> «EmergingConv | SymmetricConv».init(3, «4 → 5»)
  kernel_size: expected at least 1 -> PeriodicConv.init(2, kernel_size=«0 → 1»)
  dilation: .* axis, 2147483647 at most, got 92 -> PeriodicConv(KERNEL, dilation=2**«63 → 30»)
  dilation: .* got 3 -> PeriodicConv(KERNEL, dilation=(1, 1«, 1 → »))
  mask: expected 'corner' or 'raster', got array -> corner(mask=«np.ones(2) → 'corner'»)
  channel_order: expected 'lower' or 'upper' -> corner(channel_order='«low → lower»')
  padding: expected 'zeros' or 'circular'
      -> ExponentialConv(EYE[..., None], padding='«zero → zeros»')
  padtype: expected 'odd' or 'even' -> filtfilt([1], [1, 0.5], S, padtype='«edge → even»')
  squeeze: expected 'pixels' or 'haar' -> glow('plain', squeeze='«db2 → haar»')
  direction: a raster mask has one .* \(1, -1\)
      -> AutoregressiveConv.init(2, mask='raster', direction=(«1 → -1», -1))
  a raster mask needs an odd size along every axis but .*\(2, 2\)
      -> corner(KERNEL«→ [..., :1]», mask='raster')
  second: expected the direction opposite .* got \(1, 1\) -> EmergingConv(CORNER, «CORNER → BACK»)
  second: expected 2 spatial axes as first has, got 1 -> EmergingConv(CORNER, «SIGNAL → BACK»)
  permutation: .* 2 once, got \[0, 0, 1\] -> plu(permutation=np.asarray([0, «0 → 2», 1]))
  sign: expected a positive or negative number -> plu(sign=np.asarray([1.0, «0.0 → -1.0», 1.0]))
  reflectors: expected no zero vector, got one in row 1 -> QRConv1x1(«GAP → EYE», EYE, ONES)
  weight: expected shape \(C, C\), got \(0, 0\) -> Conv1x1(EYE[:«0 → 3», :«0 → 3»])
  kernel: expected shape .* got \(3, 3, 0\) -> PeriodicConv(KERNEL[..., 0, :«0 → 1»])
  log_scale: expected shape \(C,\), got \(3, 3\) -> ActNorm(«EYE → ONES», None)
  names of axes, "\*k" the last .* \('\*k', 'C'\) -> array('*k'«, 'C' → »)
  names of axes, .*, got \(\) -> array(«→ 'C'»)
  reflectors: expected shape \(m, C\), got \(3,\)$ -> OrthogonalConv1x1(ONES«→ [None]»)
  upper: expected shape \(C, C\) with C = 2 as reflectors has -> QRConv1x1(«PAIR → EYE», EYE, ONES)
  steps: expected at least one operator -> Chain([«→ ONE»])
  steps\[1\]: expected 3 channels as steps\[0\] .* 2 -> Chain([ONE, Conv1x1.init(«2 → 3»)])
  steps\[1\]: expected 2 spatial axes as steps\[0\] has, got 1 -> Chain([CORNER, «SIGNAL → ONE»])
  x: expected shape .* 2 spatial axes, got \(4, 4\) -> squeeze(np.ones((4, 4))«→ [None]»)
  x: .* divisible by 2, got \(4, 5\) -> squeeze(X«→ [..., :4]», 2)
  x: .* divisible by 4, got 3 -> unsqueeze(«X → X[:, [0, 0, 0, 0]]»)
  factor: expected a power of 2 .* got 3 -> squeeze(np.ones((1, 1, 6, 6)), 3, basis='«haar → dct»')
  log_scale: expected finite numbers -> save(ActNorm(np.asarray([1, «-np.inf → 1.0»]), None), 'f')
  basis: expected 'pixels' or 'haar' or 'dct', got 'wavelet'
      -> squeeze(np.ones((1, 1, 6, 6)), basis='«wavelet → haar»')
  Conv1x1 is exactly singular -> Inverse(Chain([ActNorm.init(3), Conv1x1(«GAP → EYE»)])).forward(X)
  mixing: expected .* got 'lu'; .* imported -> it.EmergingConv2d(4, mixing='«lu → plu»')
  mask: expected -> it.EmergingConv2d(4, mask='«circle → corner»')
  kernel_size: expected odd -> it.EmergingConv2d(4, kernel_size=«2 → 3»)
  x: expected shape \(batch, 3, \*spatial\) -> it.ReversibleChain([LAYER])(IMAGES«[:, :2] → »)
  parametrization: expected -> it.Conv1x1(4, '«lu → plu»')
  max_gain: expected .* above 1 -> it.Conv1x1(3, max_gain=«0.1 → 1.1»)
  offsets: .* \(1, 0\) and \(-1, 1\) contradict each other along axis 0, and of .* no other axis
      -> propagate(X, X[:, :, None][:, :, [0] * 3], [(1, 0), (-1, 1), (0, «-1 → 1»)])
  x: expected the shape .* with 1 spatial axes .* got \(8,\)
      -> propagate(S«→ [None]», Y[:, :1], [(-1,)])
  gain: expected the shape .*; got \(3, 2, 8\)
      -> propagate(Y, Y[:, :, None], [(-1,)], np.ones((«3 → 1», 2, 8)))
  offsets: expected a sequence of tuples.*, got \[«|\(\)|\(1, 2\), \(3,\)»\]
      -> propagate(Y, Y[:, :, None], [«|()|(1, 2), (3,) → (1,)»])
  b: expected at least one coefficient -> lfilter([«→ 1.0»], [1.0], S)
  axis: expected one of the 1 axes of x, got 1 -> lfilter([1.0], [1.0], S, «1 → 0»)
  zi: expected 2 states, one .* \(2, 2\) .* got \(1, 2\) -> sosfilt(TWO, S, zi=PAIR[:«1 → 2»])
  zi: expected 1 numbers .* else the shape of x, or 1: \(3, 1\) with time last, got \(2, 1\)
      -> lfilter([1.0], [1.0, 0.5], EYE, zi=EYE[:«2 → 3», :1])
  sos: expected the shape .* got \(«6, | 0, 6»\)
      -> sosfilt(«TWO[0] | np.ones((0, 6)) → TWO | np.ones((1, 6))», S)
  a: expected 8 samples .* or 1, got the shape \(3, 2\)
      -> varying_lfilter([[1.0]], np.ones((«3 → 8», 2)), S)
  b: expected 8 samples .* has an axis more, as \[\[1.0\]\]
      -> varying_lfilter([«1.0 → [1.0]»], [[1.0]], S)
  zi: expected 2 numbers .* got \(1,\) -> lfilter([1.0], [1, 0.5, 0.2], S, zi=S[:«1 → 2»])
  zi: expected 1 numbers along .* got \(2,\) -> lfilter([1.0], [1.0, 0.5], S, zi=S[:«2 → 1»])
  b: expected rows of one length -> lfilter([[1.0, «→ 2.0»], [1.0, 2.0]], [1.0], np.ones((2, 3)))
  a: expected rows of one length -> lfilter_zi([1.0], [[1.0, «→ 2.0»], [1.0, 2.0]])
  psf: expected rows of one length -> from_psf([[1.0«→, 1, 1»], [1, 2, 1], [1, 1, 1]])
  b, a: expected axes .* \(3,\) and \(2,\) -> lfilter_zi(np.ones((3, 2)), np.ones((«2 → 3», 3)))
  boundary: expected one of 'periodic', .* axis, got None -> from_psf(ONES, boundary=«None → 'odd'»)
  psf: expected a sum -> from_psf([[1, -2, 1]], boundary=('periodic', '«mirror → zero»'))
  differs from its flip by 2.0e-01 of its -> from_psf(SKEW«→ [:1]», boundary=['odd'])
  even along axis 0, as 'odd' borders -> from_psf(EDGE, boundary=('«odd → periodic»', 'odd'))
  at 1 along axis 1, got its centre of mass at 0 -> from_psf(EYE[[«0 → 1»]], boundary=RING)
  psf: expected a sum other -> from_psf([«0.0 → -1», «0 → 2», «0 → -1»], boundary='odd')
  mass at 0.00 -> from_psf([[0, 1, 0], [1, «0 → 0.2», 0]], boundary=['periodic'])
  sum other -> from_psf([100, -300, 200 + «5e-14 → 2e-12»], boundary='periodic')
  mass at 6.50 -> from_psf([0.0] * «6 → 5» + [1, 1] + [0] * «1 → 2», boundary='periodic')
  psf: expected 2 axes, .* shape \(3,\) -> from_psf(ONES«→ [None]», boundary=RING)
  psf: expected 0 axes, .* shape \(\) -> from_psf(np.ones(«() → 3»))
  psf: expected 1 axes, .* shape \(0, 3\) -> from_psf(np.ones((«0 → 1», 3)), boundary=['odd'])
  'reflect' of scipy.ndimage is 'symmetric', that of
      -> from_psf([1.0], boundary='«reflect → symmetric»')
  boundary: expected borders without 'mirror' for least
      -> «MIRROR → SymmetricConv(MIRROR.kernel)».least_squares(S[None])
  boundary: expected at most three taps .* 1
      -> from_psf(np.ones((3, «5 → 3»)), boundary=('symmetric', 'zero'))
  boundary: expected one of .* or 2 of them -> SymmetricConv(KERNEL, boundary=('odd',«→ 'odd'»))
  order: expected an integer from 2 to 5, got \[3\] -> spline_filter(S, «[3] → 3»)
  mode: expected 'mirror' or .*, got 'wrap' -> spline_filter(S, mode='«→ grid-»wrap')
  mode: .* got 'wrap'; "wrap" and "grid -> map_coordinates(S, [[1]], mode='«→ grid-»wrap')
  coordinates: expected the shape \(1, ...\) -> map_coordinates(S, [[1.0]«, [1.0] → »])
  cval: expected a number -> map_coordinates(S, [[1.0]], cval=«'0' → 0»)
  x: expected at least one pixel -> map_coordinates(S[«:0 → :1»], [[1.0]])
  axes: expected some of the 1 axes of x, once each -> spline_filter(S, axes=(0«, -1 →,»))
  damp: expected a number or a 0-d array, got .* \(2,\) -> NORM.least_squares(Y, Y[0, «: → 0», 0])
  damp: expected a finite number -> BOX.least_squares(Y[:, :1], np.«inf → finfo(float).max»)
  damp: .* at least 0, got array\(-1 -> BOX.least_squares(Y[:, :1], np.asarray(«-1.0 → 1.0»))
  damp: expected .* got 1e\+39 -> GROWN.least_squares(SMALL[None], 1e«39 → 38»)
  y: expected images, got none -> damp_for_noise(NORM, Y[:«0 → 1»], 0.8)
  penalty: expected finite numbers -> BOX.least_squares(Y[:, :1], 1, «NANS → STEP»)
  penalty: expected at least one operator, got none -> BOX.least_squares(Y[:, :1], 1, [«→ STEP»])
  penalty: expected 2 channels and 1 spatial axes, as y has, got Conv1x1
      -> NORM.least_squares(Y, 1, Conv1x1(«EYE | PAIR, ndim=2 → PAIR, ndim=1»))
  sigma: .* got 0.9, and an x whose penalty -> damp_for_noise(BOX, Y[:, :1], 0.9«, STEP → »)
  y: expected finite numbers, got NaN -> damp_for_noise(NORM, Y«*np.nan → », 0.8)
  y: expected the grid -> PERIODIC.prepare((«3 → 4», 5)).least_squares(X)
  before: expected the shape \(2, 1, 2, 5\), since the taps reach 2 .* got \(2, 1, 1, 5\); give the
      first rows behind this block -> TALL.«forward | inverse»(BLOCK, BLOCK[:, :, :«1 → 2»])
  last rows before this block -> TALL.replace().transpose().inverse(BLOCK, BLOCK«→ [:, :, :2]»)
  shape: expected sizes of at least 0, got \(-1, 4\) -> aslinearoperator(PERIODIC, («-1 → 1», 4))
  shape: expected shape \(\*batch, 3, \*spatial\) -> aslinearoperator(PERIODIC, («2 → 3», 4, 5))
  grid \(4, 4\) on .*, got \(5, 4\)
      -> ij.reversible(JAX_ONE, (4, 4)).forward_and_log_det(jax.numpy.zeros((1, 4, «5 → 4», 4)))
  x: expected shape \(batch, \*spatial, 2\) with any number of spatial axes, got \(2,\)
      -> ij.channels_last(JAX_NORM).forward(jax.numpy.zeros(«2 → (1, 2)»))
  digits: expected a number from 0 .* got «-1 | nan»
      -> it.InverseGuard(LAYER, (4,), digits=«-1 | np.nan → 0»)
  every: expected a positive integer up to -> ij.InverseGuard(JAX_NORM, (4,), every=2**31«→ -1»)
  spatial_shape: expected at least one pixel -> ij.InverseGuard(JAX_NORM, lambda name: («0 → 1»,))
  spatial_shape: expected a grid .* got None -> ij.InverseGuard(JAX_NORM«→, (4,)»).step(JAX_NORM)
  multiples of 2\^levels = 4, got 6 x 4 -> glow(shape=(1, «6 → 8», 4))
  shape: expected \(C, H, W\) -> glow(shape=(«→ 1, »4, 4))
  levels -> glow(levels=«0 → 1»)
  squeeze -> glow(squeeze='«db4 → dct»')
  kernel_size: expected an odd number -> glow(kernel_size=«2 → 3»)
  scale_floor -> glow(scale_floor=«1.0 → 0.9»)
  scale_floor: .* got False -> glow(scale_floor=«False → 0.0»)
  context -> glow(context=«0 → 1»)
  reversible -> glow(context=«1 → None», reversible=True)
  layers: level0_step0_mixing -> glow(lambda channels: it.Conv1x1(channels«+1 → »))
  expected 2 spatial axes, got 1 -> glow(mixing=it.PeriodicConv«1d → 2d»)
  expected float32 of shape \(3, 2\).*got none -> GIVEN.log_prob(NOISE«→, context=CONTEXT»)
  context:  -> GIVEN.log_prob(NOISE, context=CONTEXT«[:, :1] → »)
  got float64 of shape \(3, 2\) -> GIVEN.log_prob(NOISE, context=CONTEXT«.double() → »)
  multiple of the grid -> GIVEN.log_prob(NOISE, context=torch.zeros(3, 2, «3, 3 | 0, 4 → 4, 4»))
  multiple of the grid 0 x 2, got float32
      -> AffineCoupling(2, 4, context=2)(ZS[0][:, :, :«0 → 2»], torch.zeros(3, 2, 4, 4))
  expected none, as no layer -> FLOW.log_prob(NOISE«, context=CONTEXT → »)
  expected none, got float32 -> AffineCoupling(2, 4)(ZS[0][:, :2]«, CONTEXT → »)
  zs: expected a batch -> FLOW.decode([ZS[0]«[:2] → », ZS[1]])
  channels: expected an even number -> Split(«3 → 4»)
  «x | z»: expected shape \(B, 4, H, W\), got \(2, 3, 4, 4\)
      -> AffineCoupling(4, 8)«| .inverse»(torch.zeros(2, «3 → 4», 4, 4))
  x: expected shape \(B, 4, H, W\), got \(4, 4, 4\) -> Split(4)(torch.zeros(«→ 1, »4, 4, 4))
  kept: expected shape \(B, 2, H, W\) -> Split(4).inverse([torch.zeros(2, «1 → 2», 4, 4)] * 2)
  z: expected shape \(2, 8, 1, 1\) as kept, got \(3, 8
      -> Split(16).inverse((ZS[1]«[:2] → », ZS[1]))
  layers: 0 .*context: expected a positive integer, got «Linear | True»
      -> Multiscale((1, 4, 4), [contextual(«torch.nn.Linear(1, 1) | True → 2»)])
  differ as text, got \['1', 1\] -> Multiscale((3, 2, 2), {'1': LAYER, «→ -»1: LAYER})
  factor: expected a positive integer up to 2147483647, got -1 -> it.Squeeze(«-1 → 1»)
  one log-determinant of the shape \(3, 2, 2\); one image is x\[None\]
      -> it.ReversibleChain([it.ActNorm(3, ndim=2)])(IMAGES«[0] → »)
  noise: expected the shape of the images -> JAX_FLOW.bits_per_dim(JAX_PIXELS, JAX_NOISE«[:1] → »)
  zs: expected a batch of each of the shapes -> JAX_FLOW.decode(JAX_FLOW.draw_latents(KEY, 3)«*2 →»)
  n: expected a positive integer.*got 0 -> JAX_FLOW.sample(KEY, «0 → 1», np.float64(0.7))
  mixing: expected one of plain, .*got None
      -> ij.flows.Glow.init(KEY, (1, 4, 4), 1, 1, 4, mixing=«None → 'plain'»)
  use jax\.vmap -> ij.init(jax.random.split(KEY)«→ [0]», Conv1x1, 2)
  dtype: JAX has no float64 here
      -> wide(«False → True», lambda: ij.init(KEY, ActNorm, 3, dtype='float64'))
  cannot be saved: Conv1x1: weight: expected shape
      -> save(jax.tree.map(lambda a: a[«None → ...»], JAX_ONE), 'f')
  path: expected the name of a file -> save(ONE, '«→ f»')
  of one channel it is kernel\[None, None\] -> PeriodicConv(np.ones(5)«→ [None, None]»)
  ndim: .* 64 at most, got 65 -> Conv1x1(EYE, ndim=«65 → 64»)
  ndim=3 makes it so many axes -> PeriodicConv.init(2, (3, 3, 3)«→, ndim=3»)
  x: expected at least one pixel -> PERIODIC.forward(X[:, :, :«0 → 1»])
  \(batch, 3, \*spatial\) .* any number of spatial axes, got \(3,\)$ -> ONE.forward(ONES«→ [None]»)
  \(\*batch, 3, \*spatial\) .* and 2 spatial axes, got \(4, 3\)$
      -> PERIODIC.forward(X[0, ..., «0].T → :]»)
  or say ndim=1 when it is made -> ONE.forward(X[«0 → :», :, 0])
  of one image it is x\[None\], or say ndim=2 when it is made -> ONE.forward(X[0]«→ [None]»)
  by moveaxis\(x, -1, «-3 | 1»\) -> «PERIODIC | ONE».forward(X«.transpose(0, 2, 3, 1) → »)
  without its channel axis is y\[None\] -> BLUR.inverse(X[0, 0]«→ [None]»)
  their channel axis are y\[\.\.\., None, :, :\] -> BLUR.inverse(X[0]«→ [..., None, :, :]»)
  got 3: \(3, 3, 3\); EmergingConv3d takes so many -> it.EmergingConv«2d → 3d»(2, (3, 3, 3))
  got 4: \(3, 3, 3, 3\) -> it.PeriodicConv2d(2, (3, 3«, 3, 3 → »))
  a library that was not used before, got 'numpy' -> register_backend('«numpy → unused»', adapter())
  without dots, 'dask' of dask.array, got  -> register_backend('dask.array', np)
  ndim: expected the number of spatial axes -> TorchTransform(it.Conv1x1(3)«→, ndim=0»)
  ndim: expected the operator's, 2, got 1 -> TorchTransform(it.EmergingConv2d(3), ndim=«1 → 2»)
  conv: expected a layer that keeps .* \(8, 1, 1\), got one that makes it \(2, 2, 2\)
      -> TorchTransform(it.«Squeeze() → Conv1x1(8)», ndim=2)(ZS[1])
  ndim: expected 0 or more -> TorchTransform(it.Conv1x1(3), ndim=«-1 → 0»)
  cache_size must be 0 or 1 -> TorchTransform(LAYER, ndim=0, cache_size=«2 → 1»)
  expected shape \(\*batch, C, \*spatial\)
      -> TorchTransform(it.EmergingConv2d(2))(torch.zeros(«3, 3 → 2, 3, 3»))
  shape: expected one .*, got .*: x: expected shape .* with 2 channel
      -> ij.interop.FlowjaxBijection(JAX_NORM, («3 → 2», 4))
  shape: expected at least 1 -> ij.interop.FlowjaxBijection(JAX_NORM, (2, «-4 | 0 → 4»))
  shape: expected one .*: x: expected shape .*\*spatial, 2\)
      -> ij.interop.FlowjaxBijection(ij.channels_last(JAX_NORM), («2, 4 → 4, 2»))
  shape: expected one .*: x: expected the grid \(4, 4\)
      -> ij.interop.FlowjaxBijection(ij.reversible(JAX_ONE, (4, 4)), (4, «5 → 4», 4))
  at a frequency f; change the kernel or the grid size«$ | , or use least_squares\(y\), the sol»
      -> SymmetricConv(STEP.kernel * [2, 1], boundary='«mirror | symmetric → odd»').inverse(
      Y[:, :1])
TypeError
  y: .* got complex128; pass its real -> CORNER.inverse(X«+0j → »)
  got \w*float\d+; -> CORNER.inverse(X.astype(«np.longdouble → float»))
  of numpy as kernel is, got .* torch; .*asarrays\(like= -> CORNER.forward(«torch.as_tensor(X) → X»)
  bias: expected dtype float64 as kernel has, got float32 -> PeriodicConv(KERNEL, «SMALL → ONES»)
  kernel_size: expected an integer, or 2 .* got «\{3, 5\} | \{3: 3, 5: 5\}»
      -> PeriodicConv.init(1, «{3, 5} | {3: 3, 5: 5} → [3, 5]»)
  dilation: expected an integer, or 2 .* got 1\.0 -> PeriodicConv(KERNEL, dilation=«1.0 → 1»)
  direction: expected an integer -> corner(direction=«1.0 → 1»)
  steps: expected a list of operators, got None -> Chain(«None → [ONE]»)
  Chain takes one list of steps: Chain\(\[a, b\]\) -> Chain(«ONE, CORNER → [ONE, CORNER]»)
  first: expected an AutoregressiveConv, got PeriodicConv -> EmergingConv(«PERIODIC → BACK», CORNER)
  permutation: expected integers, got float64 -> plu(permutation=«ONES → np.arange(3)»)
  permutation: expected an array of numpy as lower is -> plu(permutation=«torch → np».arange(3))
  ndim: .* got True -> Conv1x1(EYE, ndim=«True → 1»)
  kernel_size: .* got True -> PeriodicConv.init(2, («True → 1», 3))
  channels: .* got 2\.0 -> ActNorm.init(«2.0 → 2»)
  steps\[1\].weight: .* float64 as steps\[0\] has, got float32
      -> Chain([ONE, ONE«.asarrays(SMALL) → »])
  weight: expected a real floating dtype -> Conv1x1(EYE«.astype(int) → »)
  like: expected a real floating dtype -> ONE.asarrays(S.astype(«int → float»))
  steps\[1\]: expected an InvertibleConv, got ndarray -> Chain([ONE, «EYE → ONE»])
  conv: expected an InvertibleConv, got «ndarray | tuple» -> Inverse(«EYE | (ONE, ONE) → ONE»)
  tuple of integers such as .* got «\{4, 5\} | \{4: 4, 5: 5\} | an array of shape \(2,\)»
      -> CORNER.log_det(«{4, 5} | {4: 4, 5: 5} | PAIR[0] → [4, 5] | {4: 4, 5: 5}.values() |
      PAIR[0].astype(int)»)
  first: .* a tuple beside another -> EmergingConv(«(CORNER,) → BACK», CORNER)
  kernel: expected an array .* got NoneType -> CORNER.replace(kernel=«None → KERNEL»)
  rng: expected a numpy.random.Generator .* got int -> EmergingConv.init(3, rng=«0 → RNG»)
  x: expected dtype float64 .*, got float32; .*: cast x -> CORNER.forward(X.astype('>f«4 → 8»'))
  x: expected a dense tensor, got «one of layout .*coo | a nested tensor»
      -> Conv1x1(torch.eye(3)).forward(«IMAGES.to_sparse() | NESTED → IMAGES»)
  x: expected a real floating dtype -> ONE.forward(RECORDS«→ .a»)
  «in a list, got one ActNorm | takes one list of layers»
      -> it.ReversibleChain(«LAYER | LAYER, LAYER → [LAYER]»)
  x: expected a torch.Tensor, got ndarray -> it.ReversibleChain([LAYER])(«X → IMAGES»)
  key: expected a key such as .*, got «Array | array»
      -> ij.init(«jax.numpy.arange(2) | np.zeros(2, 'uint32') → KEY», ActNorm, 3)
  cls: expected a class of invconv with an init, got 'A -> ij.init(KEY, «'ActNorm' → ActNorm», 3)
  cls: expected a class of invconv -> ij.init(KEY, «Chain → ActNorm», 3)
  come from the key -> ij.init(KEY, Conv1x1, 3«, rng=RNG → »)
  dtype= says -> ij.init(KEY, ActNorm, 3«, like=jax.numpy.zeros(0) → »)
  dtype: expected a real floating dtype of 16 bits
      -> ij.init(KEY, ActNorm, 3, dtype='«int32 | complex64 | float8_e4m3fn → float32»')
  as many channels come out .* positional arguments -> it.EmergingConv2d(3, 3«, 3 → »)
  EmergingConv.init\(12\) draws -> EmergingConv«→.init»(12)
  PLUConv1x1.init\(3\) draws -> PLUConv1x1«→.init»(channels=3)
  ZukoTransform\(layer\) -> LAYER(«None → IMAGES»)
  symbolic_trace, which sees no shapes; torch.exp -> torch.fx.symbolic_trace(LAYER)
  jit.script cannot compile ActNorm; torch.export.export -> torch.jit.script(LAYER)
  got ActNorm; of a layer pass layer.operator\(\) -> it.InvertibleModule(LAYER«→ .operator()»)
  got tuple; a layer returns \(z, log_det\)
      -> «torch.nn.Sequential(LAYER, LAYER) → it.Chain([LAYER, LAYER])»(IMAGES)
  x: expected an array without a mask.*filled -> CORNER.forward(MASKED«→ .filled(0)»)
  weight: expected an array without a mask -> Conv1x1(«np.ma.masked_equal(EYE, 1) → EYE»)
  b: expected an array without a mask -> lfilter(np«.ma → ».ones(2), [1.0], S)
  b: expected numbers, or one array, got a list of arrays .* stack them
      -> lfilter([torch.tensor(1.0«, requires_grad=True → »)], [1.0], S)
  psf: expected numbers, or one array, got a tuple .* stack them
      -> jax.jit(lambda p: from_psf((«p → 1.0»,)).kernel)(1.0)
  psf: expected an array without a mask -> from_psf(np«.ma → ».ones(3))
  penalty: .* InvertibleConv, got ndarray -> BOX.least_squares(Y[:, :1], 1, «S → STEP»)
  penalty.weight: expected dtype float64 as y has, got float32
      -> NORM.least_squares(Y, 1, Conv1x1(PAIR«.astype('f4') → »))
  damp: expected an array of a library -> BOX.least_squares(Y[:, :1], «'little' → 0.1»)
  before: expected dtype float64 -> TALL.inverse(BLOCK, BLOCK[:, :, :2]«.astype('f4') → »)
  x: expected float32, got float64, which JAX has here only inside jax.enable_x64\(True\)
      -> wide(«False → True», functools.partial(lfilter, [1.0], [1.0, 0.5], JAX_X))
  y: expected float32, got float64, which JAX has here only inside jax.enable_x64\(True\)
      -> wide(«False → True», functools.partial(JAX_CORNER.prepare((4, 5)).inverse, JAX_X))
  kernel: expected float32, got float64, which JAX has here only inside jax.enable_x64\(True\)
      -> wide(«False → True», functools.partial(JAX_CORNER.«log_det | prepare → prepare», (4, 5)))
  y: expected an array of «a library | jax as kernel»
      -> ij.channels_last(JAX_CORNER).inverse(«[[1.0]] | X.T[..., 0] → JAX_X.T[..., 0]»)
  x: expected an array of a library
      -> ij.reversible(JAX_ONE, (4, 4)).forward_and_log_det(«[] → jax.numpy.zeros((1, 4, 4, 4))»)
  noise: expected an array of jax -> JAX_FLOW.bits_per_dim(JAX_PIXELS, «np.asarray → »(JAX_NOISE))
  before: expected an array of numpy as y is
      -> TALL.prepare((4, 5)).inverse(BLOCK, «torch → np».zeros((2, 1, 2, 5)))
  before: expected none, since only .* for PeriodicConv -> READY.inverse(X«, X → »)
  axes: expected an integer, got «array | ''» -> spline_filter(S, axes=«np.arange(1) | '' → 0»)
  offsets: expected a sequence of tuples.*, got 3 -> propagate(Y, Y[:, :, None], «3 → [(3,)]»)
  offsets: expected an integer, got 1.5 -> propagate(Y, Y[:, :, None], [(1«.5 → »,)])
  axis: expected an integer, got 0.0 -> lfilter([1.0], [1.0], S, «0.0 → 0»)
  shape: expected an integer, got 4.0 -> aslinearoperator(PERIODIC, («4.0 → 4», 5))
  conv: .* got PreparedInverse; pass its .conv -> aslinearoperator(READY«→ .conv», (4, 5))
  kernel: expected an array of NumPy, got Tensor
      -> aslinearoperator(PERIODIC«.asarrays(IMAGES) → », (4, 5))
  chain: expected an invconv.Chain, got list -> ij.reversible(«[] → JAX_ONE», (4,))
  spatial_shape: expected a tup -> ij.reversible(JAX_ONE, «4 → (4,)»)
  every: expected a positive integer, got 0.5 -> it.InverseGuard(LAYER, (4,), every=«0.5 → 5»)
  an InvertibleConv or a layer that holds one, got Flip -> diagnose(«Flip() → LAYER», (4, 4))
  like: expected a real floating -> from_psf([1.0], like=S.astype(«int → float»))
  like: expected a real floating dtype -> load(kept(ONE), like=S.astype(«int → float»))
  «b | a»: expected a real .* got int64
      -> lfilter_zi(«torch.ones(1).long() | [1] → [1]», «[1] | torch.ones(1).long() → [1]»)
  path: expected the name of a file -> load(«3 → kept(ONE)»)
  depth -> glow(depth=«1.5 → 1»)
  got ReLU at level0_step0_mixing -> glow(lambda channels: «torch.nn.ReLU() → it.Conv1x1(channels)»)
  zs: expected a tuple of .*got Tensor -> FLOW.decode(ZS«[0] → »)
  zs: expected .* real -> FLOW.decode([z«.to(int) → » for z in ZS])
  uint8 -> FLOW.bits_per_dim(«NOISE → PIXELS»)
  images: expected a torch.Tensor, got nd -> FLOW.bits_per_dim(PIXELS«.numpy() → »)
  x: expected a real .*got uint8 -> FLOW.encode(«PIXELS → NOISE»)
  expected a torch.Tensor, got nd -> FLOW.encode(NOISE«.numpy() → »)
  images: expected a torch.Tensor, got nd -> Dequantize()(PIXELS«.numpy() → »)
  x: expected a torch.Tensor, got nd -> Dequantize().inverse(NOISE«.numpy() → »)
  x: expected a torch.Tensor, got nd -> «Split(2) | AffineCoupling(2, 4)»(ZS[0]«.numpy() → »)
  expected modules .* in a list, got one ActNorm -> Multiscale((1, 4, 4), «→ [»it.ActNorm(1)«→ ]»)
  factor: expected a positive integer, got 2\.5 -> it.Squeeze(2«.5 →»)
  ndim: expected a positive integer, got 2\.0 -> it.Squeeze(ndim=2«.0 →»)
  n: expected a positive integer.*got 1.5 -> JAX_FLOW.sample(KEY, «1.5 → 1»)
  invconv_jax.init takes a key -> EmergingConv.init(2, rng=«KEY → RNG»)
  PeriodicConv.__init__\(\) got an unexpected -> it.PeriodicConv2d(2«, padding=1 → »)
  call layer.double\(\) or «x | z».float\(\) -> LAYER«| .inverse»(IMAGES«.double() → »)
  Chain\(\[layer.operator\(\) for layer in ...\]\) -> save(«[LAYER] → Chain([ONE])», 'f')
  module: expected a module, got <class -> register_backend('dask', ArrayOps)
  ARRAY_OPS to be a subclass of ArrayOps, got <class 'int'>
      -> register_backend('unused', adapter(ARRAY_OPS=«int → ArrayOps»))
  ndim: expected a number of spatial axes, got 2\.0 -> TorchTransform(it.Conv1x1(3), ndim=«2.0 → 2»)
  conv: expected an operator of invconv, got -> ij.interop.DistraxBijector(«3 → JAX_NORM», ndim=1)
  conv: expected an operator -> ij.interop.FlowjaxBijection(«3 → JAX_NORM», (2, 4))
  conv: expected an operator -> ij.interop.BijxBijection(«3 → JAX_NORM», ndim=1)
  conv: expected an operator -> ij.interop.NumpyroTransform(«3 → JAX_NORM», ndim=1)
  shape: expected -> ij.interop.FlowjaxBijection(JAX_NORM, «5 | (2, 4.0) → (2, 4)»)
AttributeError
  'EmergingConv2d'; layers .* in invconv_torch -> «ic → it».EmergingConv2d(3)
InvalidFileError
  not an ordinary file -> load([kept(ONE), '.'][«1 → 0»])
"""


class Row(NamedTuple):
    """A call, the words of a docstring that promise its error, and how the message reads."""

    of: str  # a public name, or a kind of error
    words: str
    message: str
    wrong: str  # the call,
    right: str  # and one beside it


def picked(text: str, n: int, end: int) -> str:
    """Return a text with the nth alternative of each bracket, wrong (end=0) or right (-1)."""

    def one(bracket: re.Match[str]) -> str:
        alternatives = re.split(r" ?\| ?", bracket[1].split("→")[end].strip())
        return alternatives[n % len(alternatives)]

    return re.sub("«(.*?)»", one, text)


def rows() -> Iterator[Row]:
    name = ""
    for line in TABLE.strip().replace("\n      ", " ").splitlines():
        if not line.startswith(" "):
            name = line
            continue
        whole = f"{name} -> {line.strip()}"
        wrongs = re.findall("«([^→»]*)", whole)
        for n in range(1 + max((wrong.count("|") for wrong in wrongs), default=0)):
            of, *words, message, wrong = picked(whole, n, 0).split(" -> ")
            yield Row(of, "".join(words), message, wrong, picked(whole, n, -1).split(" -> ")[-1])


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


TABLED = list(rows())
LONG = "invconv_jax.Glow.initialize"  # to compile
GLUE = "if|or|an?|the|as|is|for|unless|of|and|on|cpu|outside|jit|it|has|too|valueerror"


@pytest.mark.parametrize("name", promises())
def test_every_promise_has_a_row(name: str) -> None:
    words = sorted({row.words for row in TABLED if row.of == name}, key=len, reverse=True)
    whole = " ".join(when.partition(". ")[0] for when in promises()[name].values())
    left = re.sub(r"\(.*?\)", "", whole)  # of where it is known
    for some in words:
        assert some in left
        left = left.replace(some, "")
    assert not re.sub(rf"\b({GLUE})\b|\W", "", left.lower())


each = [slow(row) if row.of == LONG else row for row in TABLED]


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize("row", each, ids=" -> ".join)
def test_it_is_raised_and_not_beside(row: Row) -> None:
    promised = [kinds for kinds, when in promises().get(row.of, {}).items() if row.words in when]
    kinds = re.split(", ", promised[0] if promised else row.of)
    names = vars(it.flows) | vars(ic.extend) | vars(ic) | globals()
    with pytest.raises(Exception, match=row.message) as caught:
        eval(row.wrong, names)
    assert not Path("f").exists()
    assert {kind.__name__ for kind in type(caught.value).__mro__} & {*kinds}
    assert threads.number == 1  # whatever number was refused
    if row.right != row.wrong:
        eval(row.right, names)


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
        ic.ActNorm(np.zeros(3), None, ndim=np.int8(2)),  # type: ignore[arg-type]
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
