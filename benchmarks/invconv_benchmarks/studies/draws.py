"""Calls drawn at random, as users make them, each with what one would take instead.

That is SciPy's function for a filter or a spline; for a spectral operator its transforms there and
back, with a product at every frequency; for a 1x1 a product with its matrix; for any other a loop
over as many taps. A gradient is three of them: the call, and the gradients by x and by the kernel.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

import invconv as ic
from invconv.extend import Pointwise
from invconv.operators.convolution import SpectralConv
from invconv_benchmarks.measure.timing import Call, Floats
from invconv_benchmarks.studies.operators import Rng, numbers, split
from invconv_benchmarks.suites import as_text

Run = Callable[[Any, Any], Any]

_SIZES = 4e3, 1e6  # numbers of x
_CHANNELS, _TAPS = 48, 9  # at most; taps along an axis
_PRODUCTS, _MATRICES = 2e8, 1.2e7  # of a convolution at most, and entries at all frequencies
_POINTWISE: dict[Any, int] = dict.fromkeys(
    (ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm)
    + (ic.OrthogonalConv1x1, ic.HouseholderConv1x1, ic.CirculantConv1x1),
    1,
)
_CONVS: dict[Any, int] = {  # and how often each is drawn
    ic.AutoregressiveConv: 5,
    ic.EmergingConv: 4,
    ic.ExponentialConv: 4,
    ic.PeriodicConv: 5,
    ic.SymmetricConv: 5,
}
_OPERATORS: dict[Any, int] = {**_CONVS, **_POINTWISE, ic.Chain: 2, ic.Inverse: 1}
_DOES = {  # of an operator, behind the way in which it is called
    "forward": 5,
    "inverse": 4,
    "forward_and_log_det": 2,
    "inverse_and_log_det": 1,
    "prepared inverse": 4,
    "gradient forward_and_log_det": 3,
    "gradient inverse_and_log_det": 1,
}
_FILTERS = {"lfilter": 4, "sosfilt": 4, "filtfilt": 2, "sosfiltfilt": 2, "varying_lfilter": 1}
_LAYOUTS = {"": 5, "channels last": 2, "transposed": 1, "cropped": 1, "every other": 1}
_BORDERS: dict[str, Any] = {  # the transform of each, and its type
    "symmetric": ("dctn", 2),
    "mirror": ("dctn", 1),
    "odd": ("dstn", 1),
    "zero": ("dstn", 1),
}


class Drawn(NamedTuple):
    """A call of any library: run(given, x)."""

    words: str
    run: Run
    given: Any  # an operator, or coefficients
    x: Floats
    way: str  # "prepared", a "gradient", or ""
    instead: str
    stand_in: Run  # in NumPy
    same: bool = False  # whether that returns the same


def drawn(seed: int, number: int) -> Drawn:
    """Return one of the calls of a seed, the same on every machine."""
    rng = np.random.default_rng([seed, number])
    call = _any(rng, {_of_operator: 12, _of_filter: 6, _of_spline: 1, _of_least_squares: 1})(rng)
    dtype, layout = _any(rng, {"float32": 1, "float64": 1}), _any(rng, _LAYOUTS)
    x, given = _laid_out(call.x.astype(dtype), layout), call.given
    if isinstance(given, ic.InvertibleConv):
        given = given.asarrays(np.empty(0, dtype))
    else:
        given = tuple(v.astype(dtype) for v in given)
    words = ", ".join(filter(None, (f"{call.words} of {as_text(x.shape)}", dtype, layout)))
    return call._replace(words=words, given=given, x=x)


def _any(rng: Rng, weights: Any) -> Any:
    """Return one of several, by weights or alike."""
    shares = [*weights.values()] if isinstance(weights, dict) else [1] * len(weights)
    return [*weights][rng.choice(len(shares), p=np.asarray(shares) / sum(shares))]


def _geometric(rng: Rng, low: float, high: float) -> int:
    return int(low * (high / low) ** rng.random())


def _laid_out(x: Floats, layout: str) -> Floats:
    """Return x as a view of other memory."""
    if layout == "channels last":
        return np.moveaxis(np.moveaxis(x, 1 % x.ndim, -1).copy(), -1, 1 % x.ndim)
    if layout == "transposed":
        return np.asfortranarray(x)
    if layout == "cropped":
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)])[..., 1:-2]
    return np.repeat(x, 2, -1)[..., ::2] if layout else x


def _images(rng: Rng) -> Floats:
    """Return images (B, C, *grid), whose operators fit into memory."""
    channels, ndim = _geometric(rng, 1, _CHANNELS + 1), int(rng.integers(1, 4))
    pixels = min(_geometric(rng, *_SIZES), _MATRICES / channels) / channels
    batch = min(int(2 ** rng.integers(8)), max(1, int(pixels / 4**ndim)))
    grid = (max(3, n) for n in split(rng, pixels / batch, ndim, 20.0))
    return rng.standard_normal((batch, channels, *grid))


def _of_operator(rng: Rng) -> Drawn:
    x, does = _images(rng), _any(rng, _DOES)
    words, conv = _operator(rng, x, _any(rng, _OPERATORS))
    (way, _, method), times = does.rpartition(" "), 3 if "gradient" in does else 1
    way = f"{method.partition('_')[0]}_vjp" if times > 1 else way

    def stand_in(conv: Any, x: Floats) -> Any:
        call = _stand_in(conv, x, method, fresh=way != "prepared")
        return lambda: [call(x) for _ in range(times)]

    instead = f"{times} of " * (times > 1) + _NAMES.get(type(conv), "products with its matrix")
    run: Run = lambda conv, x: getattr(conv, method)(x)  # noqa: E731
    return Drawn(f"{words}: {does}", run, conv, x, way, instead, stand_in)


def _of_least_squares(rng: Rng) -> Drawn:
    x = _images(rng)
    words, conv = _operator(rng, x, _any(rng, (ic.PeriodicConv, ic.SymmetricConv)), mirror=False)
    way = _any(rng, ("", "prepared"))

    def stand_in(conv: Any, x: Floats) -> Any:
        return functools.partial(_stand_in(conv, x, "inverse", fresh=way != "prepared"), x)

    run: Run = lambda conv, y: conv.least_squares(y, 0.1)  # noqa: E731
    words = f"{words}: {way} least_squares".replace("  ", " ")
    return Drawn(words, run, conv, x, way, _NAMES[type(conv)], stand_in)


def _operator(rng: Rng, x: Floats, cls: Any, mirror: bool = True) -> tuple[str, Any]:
    """Return an operator for images, with any settings, and its words."""
    channels, ndim = x.shape[1], x.ndim - 2
    if cls is ic.Inverse:
        words, conv = _operator(rng, x, _any(rng, _CONVS))
        return f"Inverse of {words}", ic.Inverse(conv)
    if cls is ic.Chain:
        pairs = [_operator(rng, x, _any(rng, kinds)) for kinds in (_POINTWISE, _CONVS)]
        return "Chain of " + " and ".join(w for w, _ in pairs), ic.Chain([c for _, c in pairs])
    if cls in _POINTWISE:
        conv: Any = cls.init(channels, ndim=ndim, **({} if cls is ic.ActNorm else {"rng": rng}))
        arrays = conv.parameters().items()
        moved = {n: a + 0.1 * rng.standard_normal(a.shape) for n, a in arrays}
        return cls.__name__, conv.replace(**moved)
    products = x.size * channels * (1 if issubclass(cls, SpectralConv) else 8)
    most = max(1, int((_PRODUCTS / products) ** (1 / ndim)))
    size = min(int(rng.integers(1, _TAPS + 1)), most)
    odd = size - 1 + size % 2
    dilation = numbers(rng, ndim, 1, 4) if rng.random() < 0.25 else (1,) * ndim
    mask, order = _any(rng, ("corner", "raster")), _any(rng, ("lower", "upper"))
    direction = tuple(map(int, rng.choice((-1, 1), ndim)))
    settings: dict[str, Any] = {"dilation": dilation} if max(dilation) > 1 else {}
    if cls is ic.AutoregressiveConv:
        one = direction if mask == "corner" else direction[0]
        settings |= {"mask": mask, "direction": one, "channel_order": order}
    elif cls is ic.EmergingConv:
        settings |= {"mask": mask}
    elif cls is ic.ExponentialConv:
        settings |= {"padding": _any(rng, ("zeros", "circular"))}
    elif cls is ic.SymmetricConv:
        words = _BOUNDARIES if mirror else [w for w in _BOUNDARIES if w != "mirror"]
        one, mixed = _any(rng, words), rng.random() < 0.3
        several = [_any(rng, words) for _ in range(ndim)]
        settings = {"boundary": tuple(several) if mixed else (one,) * ndim}
        odd = min(odd, 3) if "zero" in settings["boundary"] else odd
    taps = size if cls in (ic.AutoregressiveConv, ic.PeriodicConv) else odd
    kind = _any(rng, ("near the identity", "random", "positive", "even", "positive even"))
    conv = _valued(rng, cls.init(channels, taps, ndim, rng=rng, **settings), kind)
    told = [f"{cls.__name__} {as_text((taps,) * ndim)} {kind}"]
    for name, value in settings.items():
        values = dict.fromkeys(value if isinstance(value, tuple) else (value,))
        told += [f"{name} {','.join(map(str, values if len(values) == 1 else value))}"]
    return ", ".join(told), conv


_BOUNDARIES = (*_BORDERS, "periodic")


def _valued(rng: Rng, conv: Any, kind: str) -> Any:
    """Return an operator whose kernels have such values and whose inverse is tame."""
    arrays = {}
    for name, kernel in conv.parameters().items():
        rest = rng.standard_normal(kernel.shape)
        rest = np.abs(rest) if "positive" in kind else rest
        axes = tuple(range(2, kernel.ndim))
        rest = rest + np.flip(rest, axes) if "even" in kind else rest
        size = 0.02 if "near" in kind else 0.5
        if isinstance(conv, ic.ExponentialConv):
            kept, size = 0.0, size * _any(rng, (1, 2, 5))
        else:
            norms = np.sqrt(np.square(kernel).sum(axis=(0, 1)))
            at = norms == norms.max()  # the pixel itself
            kept, rest = np.where(at, kernel, 0), np.where(at, 0, rest)
        size /= 2 ** len(axes) if isinstance(conv, ic.SymmetricConv) else 1
        sums = np.abs(rest).sum(axis=(1, *axes)).max()
        arrays[name] = kept + size * rest / (sums or 1)
    return conv.replace(**arrays)


_NAMES: dict[Any, str] = {
    ic.PeriodicConv: "its transforms and products",
    ic.SymmetricConv: "its transforms and products",
    ic.AutoregressiveConv: "a loop over its taps",
    ic.EmergingConv: "loops over its taps",
    ic.ExponentialConv: "loops over its taps, as many as terms",
    ic.Chain: "that of its steps",
    ic.Inverse: "that of its part",
}


def _stand_in(conv: Any, x: Floats, does: str, fresh: bool) -> Callable[[Floats], Any]:
    """Return the work that one would do instead of a call, on images like x.

    With ``fresh`` matrices are inverted each time. Numbers are any that take as long.
    """
    back = does.startswith("inverse")
    if isinstance(conv, ic.Inverse):
        names = ("inverse", "forward") if back else ("forward", "inverse")
        return _stand_in(conv.conv, x, does.replace(*names), fresh)
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        parts = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        calls = [_stand_in(part, x, does, fresh) for part in parts]
        return lambda x: functools.reduce(lambda x, call: call(x), calls, x)
    if isinstance(conv, ic.ActNorm):
        scale, bias = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in conv.parameters().values())
        return lambda x: x * scale + bias
    if isinstance(conv, Pointwise):
        w = conv.matrix()
        return lambda x: _product(np.linalg.inv(w) if back and fresh else w, x)
    if isinstance(conv, SpectralConv):
        return _transforms(conv, x, fresh, back, "log_det" in does)
    return _taps(conv, x, back)


def _product(w: Floats, x: Floats) -> Floats:
    return (w @ x.reshape(*x.shape[:2], -1)).reshape(x.shape)


def _transforms(conv: Any, x: Floats, fresh: bool, inverts: bool, log_det: bool) -> Any:
    words = getattr(conv, "boundary", None) or ("periodic",) * (x.ndim - 2)
    kinds: dict[Any, list[int]] = {}
    for axis, word in enumerate(words, 2):
        kinds.setdefault(_BORDERS.get(word), []).append(axis)
    waves, channels = kinds.pop(None, []), x.shape[1]

    def there(x: Any) -> Any:
        for (name, kind), axes in kinds.items():
            x = getattr(scipy.fft, name)(x, kind, axes=axes)
        return scipy.fft.rfftn(x, axes=waves) if waves else x

    def back(x_hat: Any) -> Any:
        x_hat = scipy.fft.irfftn(x_hat, [x.shape[a] for a in waves], waves) if waves else x_hat
        for (name, kind), axes in kinds.items():
            x_hat = getattr(scipy.fft, f"i{name}")(x_hat, kind, axes=axes)
        return x_hat

    def rows(x_hat: Any) -> Any:
        return np.ascontiguousarray(x_hat.reshape(*x_hat.shape[:2], -1).transpose(2, 1, 0))

    spread = np.zeros((channels, channels, *x.shape[2:]), x.dtype)
    spread[(..., *[0] * (x.ndim - 2))] = np.eye(channels)  # a kernel of some size
    kept = rows(there(spread))

    def run(x: Any) -> Any:
        x_hat = there(x)
        if channels == 1:
            return back(x_hat * kept.reshape(x_hat.shape[2:]))
        known = rows(there(spread)) if fresh and (inverts or log_det) else kept
        if log_det:
            np.linalg.slogdet(known)
        if inverts and fresh:
            known = np.linalg.inv(known)
        return back((known @ rows(x_hat)).transpose(2, 1, 0).reshape(x_hat.shape))

    return run


def _taps(conv: Any, x: Floats, back: bool) -> Callable[[Floats], Any]:
    """Return a plain convolution, or as many as an exponential's series has terms."""
    kernel, ndim, again = conv.kernel, x.ndim - 2, 1
    size, dilation = kernel.shape[2:], conv.dilation
    offsets = [*np.ndindex(size)]
    if isinstance(conv, ic.ExponentialConv):
        _, counts = conv._family.counted(kernel, x.shape[2:])
        again = counts.steps * counts.terms
    elif conv.mask == "raster":
        offsets = [t for t in offsets if t >= conv._centre]
    elif back and ndim == 1 and len(kernel) == 1:
        spread = np.zeros(dilation[0] * (size[0] - 1) + 1, x.dtype)
        spread[:: dilation[0]] = kernel[0, 0]
        return lambda x: scipy.signal.lfilter(np.ones(1, x.dtype), spread, x)
    ends = [(0, d * (k - 1)) for k, d in zip(size, dilation, strict=True)]
    wraps: Any = {"mode": "wrap"} if getattr(conv, "padding", "") == "circular" else {}
    apply: Any = _product if len(kernel) > 1 else lambda w, x: w[0, 0] * x

    def once(x: Floats) -> Floats:
        padded, y = np.pad(x, [(0, 0), (0, 0), *ends], **wraps), np.zeros_like(x)
        for t in offsets:
            starts = zip(t, dilation, x.shape[2:], strict=True)
            window = padded[:, :, *(slice(i * d, i * d + n) for i, d, n in starts)]
            y += apply(kernel[(..., *t)], window)
        return y

    return lambda x: functools.reduce(lambda x, _: once(x), range(again), x)


def _signals(rng: Rng, least: int) -> tuple[Floats, int]:
    """Return signals, and the axis of time."""
    ndim, size = int(rng.integers(1, 4)), _geometric(rng, *_SIZES)
    length = size if ndim == 1 else _geometric(rng, max(256, least), size)
    others, axis = split(rng, size / length, max(1, ndim - 1)), int(rng.integers(ndim))
    shape = [*others[: ndim - 1]]
    shape.insert(axis, length)
    return rng.standard_normal(shape), axis - ndim * int(rng.integers(2))


def _of_filter(rng: Rng) -> Drawn:
    name, way = _any(rng, _FILTERS), ""
    sections, order = int(rng.integers(1, 16)), int(rng.integers(1, 9))
    x, axis = _signals(rng, 256)
    low, high = np.sort(rng.uniform(0.15, 0.85, 2))
    if name.startswith("sos"):
        given = (scipy.signal.butter(2 * sections, low, output="sos"),)
        words, state = f"{sections} sections", (sections, *_with(x.shape, axis, 2))
    elif name == "varying_lfilter":
        order, rest = min(order, 2), np.linspace(0, 1, x.shape[axis])[:, None]
        ends = zip(*(scipy.signal.butter(order, w) for w in (low, high)), strict=True)
        given = tuple(one * rest + other * (1 - rest) for one, other in ends)
    else:
        given = scipy.signal.butter(order, low)
    if not name.startswith("sos"):
        words, state = f"order {order}", _with(x.shape, axis, order)
    if name in ("lfilter", "sosfilt"):
        way = _any(rng, {"": 2, "gradient": 1})
        if not way and rng.random() < 0.3:
            given, words = (*given, 0.1 * rng.standard_normal(state)), f"{words} with zi"

    def call(module: Any, given: Any, x: Any) -> Any:
        count = 1 if name.startswith("sos") else 2
        return getattr(module, name)(*given[:count], x, axis, *given[count:])

    def stand_in(given: Any, x: Floats) -> Call:
        if name == "varying_lfilter":
            fixed = [v[0] for v in given]
            return functools.partial(scipy.signal.lfilter, *fixed, x, axis=axis)
        return functools.partial(call, scipy.signal, given, x)

    words = f"{way} {name}, {words}, axis {axis}".strip()
    same = name != "varying_lfilter"
    instead = f"scipy.signal.{name}" if same else "scipy.signal.lfilter, fixed coefficients"
    run = functools.partial(call, ic)
    return Drawn(words, run, given, x, way, instead, stand_in, same and not way)


def _with(shape: Any, axis: int, size: int) -> tuple[int, ...]:
    other = [*shape]
    other[axis] = size
    return tuple(other)


def _of_spline(rng: Rng) -> Drawn:
    size, ndim, order = _geometric(rng, *_SIZES), int(rng.integers(1, 4)), int(rng.integers(2, 6))
    mode = _any(rng, ("mirror", "reflect", "grid-wrap"))
    x = rng.standard_normal(split(rng, size, ndim, 20.0))
    run: Run = lambda given, x: ic.spline_filter(x, order, mode)  # noqa: E731

    def stand_in(given: Any, x: Floats) -> Call:
        return functools.partial(scipy.ndimage.spline_filter, x, order, x.dtype, mode)

    words, name = f"spline_filter, order {order}, mode {mode}", "scipy.ndimage.spline_filter"
    return Drawn(words, run, (), x, "", name, stand_in, same=True)
