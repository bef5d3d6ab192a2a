"""Calls drawn at random, as users make them, each with what one would take instead.

That is SciPy's filter or spline; SciPy's transforms there and back, with a product, an inverse or a
pseudo-inverse of K above the damp a frequency, of a spectral operator; a product with its matrix,
of a 1x1; else PyTorch's convolution. The gradient of an operator counts for three of them.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import torch
import torch.nn.functional as F

import invconv as ic
from invconv.extend import Pointwise
from invconv.operators.convolution import SpectralConv
from invconv_benchmarks.measure.timing import Floats
from invconv_benchmarks.studies.operators import Rng, numbers, split
from invconv_benchmarks.suites import as_text
from invconv_conformance.cases.table import perturbed

Run = Callable[[Any, Any], Any]
_NUMBERS, _PRODUCTS, _MATRICES = (4e3, 1e6), 2e8, 1.2e7  # of x; at most, and of all frequencies
_SPECTRAL: Any = ic.PeriodicConv, ic.SymmetricConv
_CONVS: Any = *_SPECTRAL, ic.AutoregressiveConv, ic.EmergingConv, ic.ExponentialConv
_1X1: Any = ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.OrthogonalConv1x1, ic.CirculantConv1x1
_1X1 = *_1X1, ic.HouseholderConv1x1, ic.ActNorm
_DOES = ("forward", "inverse", "prepared inverse", "gradient: forward_and_log_det") * 3 + (
    *("forward_and_log_det", "inverse_and_log_det", "gradient: inverse_and_log_det"),
    *("least_squares", "prepared least_squares"),
)
_FILTERS = (
    *("lfilter", "sosfilt") * 2,
    "filtfilt",
    "sosfiltfilt",
    "varying_lfilter",
    "spline_filter",
)
_MODES = "mirror", "reflect", "grid-wrap"
_LAYOUTS: dict[str, Any] = {  # views of other memory
    "contiguous": lambda x: x,
    "channels last": lambda x: np.moveaxis(np.moveaxis(x, 1 % x.ndim, -1).copy(), -1, 1 % x.ndim),
    "transposed": np.asfortranarray,
    "every other number": lambda x: np.repeat(x, 2, -1)[..., ::2],
}
_TRANSFORMS = {"symmetric": ("dctn", 2), "mirror": ("dctn", 1)}  # and their types
_TRANSFORMS |= {"odd": ("dstn", 1), "zero": ("dstn", 1)}
_BORDERS = *_TRANSFORMS, "periodic"


class Drawn(NamedTuple):
    """A call, run(given, x) in any library."""

    words: str
    run: Run
    given: Any  # an operator, or arguments by name
    x: Floats
    instead: Run  # makes a call that does as much in NumPy or PyTorch
    way: str = ""  # "prepared", a filter's "gradient", or NumPy's method for an operator's
    same: bool = False  # whether ``instead`` returns the same


def drawn(seed: int, number: int) -> Drawn:
    """Return a call of a seed, the same on every machine."""
    rng = np.random.default_rng([seed, number])
    call: Drawn = _any(rng, (_of_operator, _of_operator, _of_filter))(rng)
    dtype, layout = _any(rng, ("float32", "float64")), _any(rng, [*_LAYOUTS, *["contiguous"] * 3])
    x, given, like = _LAYOUTS[layout](call.x.astype(dtype)), call.given, np.empty(0, dtype)
    by_name = isinstance(given, dict)
    given = changed(given, lambda v: v.astype(dtype)) if by_name else given.asarrays(like)
    words = f"{call.words}, {as_text(x.shape)} {dtype}, {layout}"
    return call._replace(words=words, given=given, x=x)


def changed(given: Any, change: Callable[[Any], Any]) -> Any:
    """Return an operator, or arguments by name, with other arrays."""
    if isinstance(given, dict):
        return {name: change(v) for name, v in given.items()}
    return given.replace(**changed(given.parameters(), change))


def _any(rng: Rng, several: Any) -> Any:
    return several[int(rng.integers(len(several)))]


def _about(rng: Rng, low: float, high: float) -> int:
    return int(low * (high / low) ** rng.random())


def _of_operator(rng: Rng) -> Drawn:
    channels, ndim, does = _about(rng, 1, 49), int(rng.integers(1, 4)), _any(rng, _DOES)
    pixels = min(_about(rng, *_NUMBERS), _MATRICES / channels) / channels
    batch = min(int(2 ** rng.integers(8)), max(1, int(pixels / 4**ndim)))
    grid = [max(3, n) for n in split(rng, pixels / batch, ndim, 20.0)]
    x = rng.standard_normal((batch, channels, *grid))
    way, _, method = does.rpartition(" ")
    squares, gradient = method == "least_squares", way == "gradient:"
    every = (*_CONVS * 4, *_1X1, ic.Chain, ic.Inverse)
    conv = _operator(rng, x, _any(rng, _SPECTRAL if squares else every))
    if squares and "mirror" in repr(conv):  # which has none
        conv = ic.SymmetricConv(conv.kernel)

    def run(conv: Any, x: Any) -> Any:
        return conv.least_squares(x, 0.1) if squares else getattr(conv, method)(x)

    def instead(conv: Any, x: Floats) -> Any:
        inverse, log_det = not method.startswith("forward"), method.endswith("log_det")
        if squares:
            call = _transforms(conv, x, way != "prepared", False, 0.1)
        else:
            call = stand_in(conv, x, inverse, way != "prepared", log_det)
        return lambda: [call(x) for _ in range(3 if gradient else 1)][-1]

    words = re.sub(r"=<\((.*?),?\) .*?>|, bias=None|, ndim=\d|, second=.*?\)\)", r" \1", repr(conv))
    way = f"{method.partition('_')[0]}_vjp" if gradient else way
    words = re.sub(r" +(?=[,)])", "", f"{does}: {words}")
    return Drawn(words, run, conv, x, instead, way)


def _operator(rng: Rng, x: Floats, cls: Any) -> Any:
    """Return an operator for images with any settings and a tame inverse."""
    channels, ndim = x.shape[1], x.ndim - 2
    if cls in (ic.Inverse, ic.Chain):
        steps = [_operator(rng, x, _any(rng, some)) for some in (_1X1, _CONVS)]
        return ic.Chain(steps) if cls is ic.Chain else ic.Inverse(steps[1])
    if cls in _1X1:
        return perturbed(cls.init(channels, ndim=ndim, rng=rng), rng)
    most = (_PRODUCTS / x.size / channels / (1 if cls in _SPECTRAL else 8)) ** (1 / ndim)
    size = max(1, min(int(rng.integers(1, 10)), int(most)))
    mask, order = _any(rng, ("corner", "raster")), _any(rng, ("lower", "upper"))
    signs = tuple(map(int, rng.choice((-1, 1), ndim)))
    borders = [_any(rng, _BORDERS) for _ in range(ndim)]
    borders = borders if rng.random() < 0.3 else borders[:1] * ndim
    direction = signs if mask == "corner" else signs[0]
    settings: dict[Any, dict[str, Any]] = {
        ic.AutoregressiveConv: {"mask": mask, "direction": direction, "channel_order": order},
        ic.EmergingConv: {"mask": mask},
        ic.ExponentialConv: {"padding": _any(rng, ("zeros", "circular"))},
        ic.SymmetricConv: {"boundary": tuple(borders)},
    }
    if cls not in (ic.AutoregressiveConv, ic.PeriodicConv):
        size = min(size - 1 + size % 2, 3 if "zero" in borders else size)
    dilated: Any = {"dilation": numbers(rng, ndim, 1, _any(rng, (2, 2, 4)))}
    dilated = {} if cls is ic.SymmetricConv else dilated
    conv = cls.init(channels, size, ndim, rng=rng, **settings.get(cls, {}), **dilated)
    scale, (positive, even) = _any(rng, (0.02, 0.5)), rng.random(2) < 0.4

    def values(kernel: Any) -> Any:
        noise = scale * rng.standard_normal(kernel.shape)
        noise = np.abs(noise) if positive else noise
        return kernel + noise + even * np.flip(noise, tuple(range(2, kernel.ndim)))

    return ic.bounded(changed(conv, values), 8.0)


def stand_in(conv: Any, x: Floats, inverse: bool, fresh: bool, log_det: bool) -> Any:
    """Return what one would do instead with images like x; with ``fresh`` it inverts each time.

    Of an inverse by substitution it is the work of a convolution. Matrices are any of the size.
    """
    if isinstance(conv, ic.Inverse):
        return stand_in(conv.conv, x, not inverse, fresh, log_det)
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        steps = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        calls = [stand_in(step, x, inverse, fresh, log_det) for step in steps]
        return lambda x: functools.reduce(lambda x, call: call(x), calls, x)
    if isinstance(conv, Pointwise):
        w = np.diag(np.exp(conv.log_scale)) if isinstance(conv, ic.ActNorm) else conv.matrix()

        def product(x: Any) -> Any:
            known = np.linalg.inv(w) if inverse and fresh else w
            return (known @ x.reshape(*x.shape[:2], -1)).reshape(x.shape)

        return product
    if isinstance(conv, SpectralConv):
        return _transforms(conv, x, inverse and fresh, log_det)
    kernel, again = torch.as_tensor(conv.kernel), 1
    convolution = getattr(F, f"conv{x.ndim - 2}d")
    if isinstance(conv, ic.ExponentialConv):  # as many as its series has terms
        counts: Any = conv._family.counted(conv.kernel, x.shape[2:])[1]
        again = counts.steps * counts.terms

    def once(x: Any, _: int) -> Any:
        return convolution(x, kernel, padding="same", dilation=conv.dilation)

    return lambda x: functools.reduce(once, range(again), torch.as_tensor(x)).numpy()


def _transforms(conv: Any, x: Floats, inverts: bool, log_det: bool, damp: float = 0.0) -> Any:
    """Return transforms as the first border has them, and products, solves, or least squares."""
    word, channels = getattr(conv, "boundary", ("periodic",))[0], x.shape[1]
    name, kind = _TRANSFORMS.get(word, ("rfftn", 0))
    given: dict[str, Any] = {"axes": range(2, x.ndim), **({"type": kind} if kind else {})}
    there = functools.partial(getattr(scipy.fft, name), **given)
    back = functools.partial(getattr(scipy.fft, f"i{name}"), s=x.shape[2:], **given)
    x_hat, rng = there(x[:1]), np.random.default_rng(0)
    values = rng.standard_normal((x_hat[0, 0].size, channels, channels))
    matrices = (values + 2 * channels * np.eye(channels)).astype(x_hat.dtype)

    def run(x: Floats) -> Any:
        x_hat = there(x)
        if channels == 1:
            return back(x_hat * matrices.reshape(x_hat.shape[1:]))
        if log_det:
            np.linalg.slogdet(matrices)
        rows = np.ascontiguousarray(x_hat.reshape(*x.shape[:2], -1).transpose(2, 1, 0))
        if inverts and damp:
            below = np.broadcast_to(damp * np.eye(channels, dtype=matrices.dtype), matrices.shape)
            both = np.linalg.pinv(np.concatenate([matrices, below], axis=1))
            rows = both[..., :channels] @ rows
        else:
            rows = np.linalg.solve(matrices, rows) if inverts else matrices @ rows
        return back(rows.transpose(2, 1, 0).reshape(x_hat.shape))

    return run


def _of_filter(rng: Rng) -> Drawn:
    name, ndim, sections = _any(rng, _FILTERS), int(rng.integers(1, 4)), int(rng.integers(1, 16))
    size, order, axis = _about(rng, *_NUMBERS), int(rng.integers(1, 9)), int(rng.integers(ndim))
    length, varies = size if ndim == 1 else _about(rng, 256, size), name == "varying_lfilter"
    others = split(rng, size / length, ndim - 1) if ndim > 1 else ()
    shape = [*others[:axis], length, *others[axis:]]
    state = [*shape]
    settings: dict[str, Any] = {"axis": axis - ndim * _any(rng, (0, 1))}
    order = min(order, 2) if varies else order  # between stable ones all are
    low, high = (scipy.signal.butter(order, w) for w in rng.uniform(0.15, 0.85, 2))
    given: dict[str, Any] = dict(zip("ba", low, strict=True))
    state[axis] = order
    if name.startswith("sos"):
        given = {"sos": scipy.signal.butter(2 * sections, rng.uniform(0.15, 0.85), output="sos")}
        state[axis], order = 2, sections
        state.insert(0, sections)
    if name == "sosfiltfilt":  # which looks at the sections for it, in vain under a jit
        settings["padlen"] = 6 * sections + 3
    elif name == "spline_filter":
        given, settings = {}, {"order": 2 + order % 4, "mode": _any(rng, _MODES)}
    elif varies:
        share = np.linspace(0, 1, length)[:, None]
        given = {n: v * share + w * (1 - share) for n, v, w in zip("ba", low, high, strict=True)}
    way = _any(rng, ("", "gradient", "with zi")) if name in ("lfilter", "sosfilt") else ""
    if way == "with zi":
        given["zi"] = 0.1 * rng.standard_normal(state)

    def run(given: Any, x: Any) -> Any:
        return getattr(ic, name)(**given, **settings, x=x)

    def instead(given: Any, x: Floats) -> Any:
        if not given:
            return functools.partial(scipy.ndimage.spline_filter, x, output=x.dtype, **settings)
        given = {n: v[0] for n, v in given.items()} if varies else given  # for all samples
        function = getattr(scipy.signal, name.removeprefix("varying_"))
        return functools.partial(function, **given, **settings, x=x)

    told = f"{order} sections, " if "sos" in given else f"order {order}, " if given else ""
    words = f"{name} {way}".strip() + f", {told}{settings}"
    gradient = "gradient" if way == "gradient" else ""
    # SciPy's prefilter of "reflect" is off on short axes
    same = not (varies or gradient or settings.get("mode") == "reflect")
    return Drawn(words, run, given, rng.standard_normal(shape), instead, gradient, same)
