"""Parametrisations whose inverse cannot explode: |K^-1|_2 <= g for every value of the parameters.

A convolution is K = D + E, with D the C x C matrix at the pixel itself and E shifts times taps, so
that |E| <= sum |taps| in the 2-norm at every image size, with zero and with circular padding. Hence

    |K^-1| <= |D^-1| / (1 - rho)            where |D^-1| sum |taps| <= rho < 1,
    |D^-1| <= exp(l) / (1 - nu)             where D = Q S (I + N) with Q orthogonal, S diagonal and
                                            at least exp(-l), and N strictly triangular, |N| <= nu.

Both are Neumann's series. What is trained is mapped to what keeps l, nu and rho by smooth maps that
are nearly the identity far below the bound:

    squashed  v -> l tanh(v / l)                       for log S, which stays in (-l, l)
    shrunk    A -> A / (1 + (u(A) / nu)^4)^(1/4)       for N, and with the sum of u for the taps

Here u(A) >= |A|_2 is the Schatten norm of order 32. It has to be an upper bound, as power iteration
is not, and close: the inf-norm is 5 at the paper's initialisation with C = 48, where |A|_2 is 0.9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from invconv.arrays.namespaces import Array, constant, diagonal_matrix, identity, namespace
from invconv.arrays.settings import finite_or_nan, instead
from invconv.arrays.stencil import kernel_of, tap_indices, taps_of
from invconv.kernels.frequencies.circulant_steps import from_spectrum, spectrum
from invconv.kernels.primitives import matmul
from invconv.kernels.series import LARGEST
from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.operators.emerging import EmergingConv
from invconv.operators.exponential import ExponentialConv
from invconv.operators.inverse import Inverse
from invconv.operators.periodic import PeriodicConv
from invconv.operators.pointwise.actnorm import ActNorm
from invconv.operators.pointwise.circulant import CirculantConv1x1
from invconv.operators.pointwise.conv1x1 import Conv1x1
from invconv.operators.pointwise.orthogonal import OrthogonalConv1x1
from invconv.operators.pointwise.plu import PLUConv1x1
from invconv.operators.pointwise.qr import QRConv1x1
from invconv.operators.spectral import SpectralConv
from invconv.operators.symmetric import SymmetricConv
from invconv.stability.squashing import norm_bound, shrinking, squashed

C = TypeVar("C", bound=InvertibleConv)

_ROOM = 1e-9  # above 1: less, and the shares that many factors get of it round to nothing


def bounded(conv: C, max_gain: float) -> C:
    """Return an operator of the same class whose inverse has a 2-norm of at most ``max_gain``.

    That holds at every image size and for every value of ``conv``'s arrays, to rounding in their
    dtype (half types are mapped in float32), as long as the norms of the arrays do not overflow:
    ``|x - x'| <= max_gain |y - y'|`` for the inverses x, x' of y, y'. So train the arrays of
    ``conv`` freely and use ``bounded(conv, max_gain)`` in its place; it is differentiable, and
    close to ``conv`` where that is far below the bound.

    Of a chain, each of its n steps has the gain ``max_gain ** (1 / n)``. Diagonals become positive:
    an autoregressive kernel's and QR's scale are taken as 1 plus a small number, whose exponential
    is the scale.

    The result remembers what it was made of: `save` writes that, and the bound is there again
    when it is loaded. A copy by ``replace`` has other arrays, and no bound.

    Parameters
    ----------
    conv : InvertibleConv
        Of any class but `Inverse`, whose inverse is somebody's forward map.
    max_gain : float
        More than 1: 10 costs the last digit. Biases do not matter.

    Returns
    -------
    InvertibleConv
        With arrays of the same names and shapes.

    Raises
    ------
    TypeError
        For an operator without such a parametrisation.
    ValueError
        Unless ``max_gain`` is finite and more than 1, by 1e-9 at least.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import AutoregressiveConv, bounded
    >>> conv = AutoregressiveConv(np.asarray([[[1.0, -3.0]]]))  # x[i] = y[i] + 3 x[i - 1]
    >>> y = np.ones((1, 20))
    >>> f"{conv.inverse(y)[0, -1]:.0e}", f"{bounded(conv, 10).inverse(y)[0, -1]:.1f}"
    ('2e+09', '4.6')
    """
    gain = finite_or_nan(max_gain)
    if not gain >= 1 + _ROOM:
        raise ValueError(
            f"max_gain: expected a finite number above 1, by {_ROOM:g} at least, "
            f"got {max_gain!r:.80}"
        )
    working = conv._in_working_precision()
    found: C = _bounded(working, gain)
    if working is not conv:
        found = found._in_dtype(conv._reference()[1].dtype)
    if found is conv:  # bounded as it is; a copy remembers what it was made of
        found = conv.replace()
    found._remember_bound(conv if conv._bounded_from is None else conv.replace(), gain)
    return found


def _bounded(conv: C, gain: float) -> C:
    _require_rule(conv)
    found: C = _RULES[type(conv)](conv, gain)
    return found


def _require_rule(conv: InvertibleConv) -> None:
    """Raise TypeError for what has no parametrisation that is bounded."""
    if type(conv) in _RULES:
        return
    known = ", ".join(sorted(cls.__name__ for cls in _RULES))
    hint = "; bound what it is the inverse of" if isinstance(conv, Inverse) else instead(conv)
    raise TypeError(f"conv: expected one of {known}, got {type(conv).__name__}{hint}")


def _strict(matrix: Array, limit: float) -> Array:
    """Return N, a matrix brought below a norm."""
    norm = norm_bound(matrix)
    return matrix * shrinking(norm, limit * namespace(norm).ones_like(norm))


def _triangle(log_scale: Array, strict: Array, gain: float) -> tuple[Array, Array, Array]:
    """Return (s, N, a bound of |D^-1|) for D = S (I + N), |D^-1| <= gain; half of it for each."""
    half = gain**0.5
    log_scale = squashed(log_scale, math.log(half))
    xp = namespace(log_scale)
    strict = _strict(strict, 1 - 1 / half)
    bound = xp.exp(-xp.min(log_scale)) / (1 - norm_bound(strict))
    return xp.exp(log_scale), strict, bound


def _diagonal_block(matrix: Array, gain: float) -> tuple[Array, Array]:
    """Return D = S (I + N) and a bound of |D^-1|, from a triangular matrix close to I."""
    scale_less_1 = namespace(matrix).linalg.diagonal(matrix) - 1
    strict = matrix - diagonal_matrix(scale_less_1 + 1)
    scale, strict, bound = _triangle(scale_less_1, strict, gain)
    return scale[:, None] * (identity(scale.shape[0], scale) + strict), bound


def _matrix(matrix: Array, gain: float) -> tuple[Array, Array]:
    """Return D = Q S (I + N) and a bound of |D^-1|, from any matrix close to a rotation."""
    xp = namespace(matrix)
    q, r = xp.linalg.qr(matrix)
    diagonal = xp.linalg.diagonal(r)
    sign = xp.where(diagonal < 0, -xp.ones_like(diagonal), xp.ones_like(diagonal))
    block, bound = _diagonal_block(sign[:, None] * r, gain)
    return matmul(q * sign, block), bound


def _taps(taps: Array, inverse_norm: Array, gain: float) -> Array:
    """Return taps with |D^-1| sum |taps| <= rho and 1 / (1 - rho) = gain."""
    norm = namespace(taps).sum(norm_bound(taps))
    return taps * shrinking(norm, (1 - 1 / gain) / inverse_norm)


def _autoregressive(conv: AutoregressiveConv, gain: float) -> AutoregressiveConv:
    causal = conv._causal()
    own = gain ** (1 / 3) if causal.reach else gain
    block, inverse_norm = _diagonal_block(causal.diagonal, own)
    taps = _taps(causal.taps, inverse_norm, gain / own) if causal.reach else causal.taps
    taps = namespace(taps).concat([block[None, ...], taps], axis=0)
    return conv.replace(kernel=kernel_of(taps, conv._kernel_size))


def _spectral(conv: SpectralConv, gain: float) -> SpectralConv:
    """Bound the matrix at the pixel itself, and the sum of the others, each as often as it is."""
    size = conv._kernel_size
    own_place = tuple((k - 1) // 2 for k in size) if isinstance(conv, PeriodicConv) else None
    centre = tap_indices(size).index(own_place or (0,) * len(size))
    often = constant(conv._counts(), conv.kernel, conv.kernel.dtype)[:, None, None]
    taps = taps_of(conv.kernel) * often
    others = [taps[:centre, ...], taps[centre + 1 :, ...]]
    rest = namespace(taps).concat(others, axis=0)
    own = gain ** (1 / 3) if rest.shape[0] else gain
    block, inverse_norm = _matrix(taps[centre, ...], own)
    if rest.shape[0]:
        rest = _taps(rest, inverse_norm, gain / own)
    parts = [rest[:centre, ...], block[None, ...], rest[centre:, ...]]
    return conv.replace(kernel=kernel_of(namespace(taps).concat(parts, axis=0) / often, size))


def _exponential(conv: ExponentialConv, gain: float) -> ExponentialConv:
    """Return e^(S + A) with |S| <= log(gain): of the symmetric part S, since A is skew.

    |e^-(S + A)| <= e^|S|, the logarithmic norm of -(S + A) being the largest eigenvalue of -S. A
    is left as it is up to where the series ends, `LARGEST`, in the 1-norm, which is at most C^(1/2)
    times the 2-norm.
    """
    symmetric, most = conv._symmetric(), LARGEST / conv.channels**0.5
    skew, xp = conv.kernel - symmetric, namespace(symmetric)
    norm, turns = (xp.sum(norm_bound(taps_of(part))) for part in (symmetric, skew))
    symmetric = symmetric * shrinking(norm, min(math.log(gain), most / 4) * xp.ones_like(norm))
    limit = most / 2 * xp.ones_like(turns)
    return conv.replace(kernel=symmetric + skew * (limit / xp.where(turns > limit, turns, limit)))


def _qr(conv: QRConv1x1, gain: float) -> QRConv1x1:
    strict = namespace(conv.upper).triu(conv.upper, k=1)
    scale, strict, _ = _triangle(conv.scale - 1, strict, gain)
    return conv.replace(upper=scale[:, None] * strict, scale=scale)


def _orthogonal(conv: OrthogonalConv1x1, gain: float) -> OrthogonalConv1x1:
    return conv  # whose inverse has the norm 1


def _circulant(conv: CirculantConv1x1, gain: float) -> CirculantConv1x1:
    """Bound |left|, |c_hat| and |right| from below, a third of the gain for each."""
    xp, limit = namespace(conv.left), math.log(gain) / 3
    left, right = (xp.exp(squashed(v - 1, limit)) for v in (conv.left, conv.right))
    real, imag = spectrum(conv.circulant)
    nothing = (real == 0) & (imag == 0)  # which has no phase
    real = xp.where(nothing, xp.ones_like(real), real)
    size = xp.hypot(real, imag)
    factor = xp.exp(squashed(xp.log(size), limit)) / size
    circulant = from_spectrum(factor * real, factor * imag, conv.channels)
    return conv.replace(left=left, circulant=circulant, right=right)


def _plu(conv: PLUConv1x1, gain: float) -> PLUConv1x1:
    xp = namespace(conv.upper)
    third = gain ** (1 / 3)
    upper = xp.triu(conv.upper, k=1)
    scale, upper, _ = _triangle(conv.log_scale, upper, third**2)
    lower = _strict(xp.tril(conv.lower, k=-1), 1 - 1 / third)
    signed = (conv.sign * scale)[:, None]
    return conv.replace(lower=lower, upper=signed * upper, log_scale=xp.log(scale))


def _plain(conv: Conv1x1, gain: float) -> Conv1x1:
    return conv.replace(weight=_matrix(conv.weight, gain)[0])


def _actnorm(conv: ActNorm, gain: float) -> ActNorm:
    return conv.replace(log_scale=squashed(conv.log_scale, math.log(gain)))


def _emerging(conv: EmergingConv, gain: float) -> EmergingConv:
    first, second = (_autoregressive(part, gain**0.5) for part in (conv.first, conv.second))
    return EmergingConv(first, second, conv.bias)


def _chain(conv: Chain, gain: float) -> Chain:
    return Chain([_bounded(step, gain ** (1 / len(conv.steps))) for step in conv.steps])


_RULES: dict[type[InvertibleConv], Callable[[Any, float], Any]] = {
    ActNorm: _actnorm,
    AutoregressiveConv: _autoregressive,
    Chain: _chain,
    CirculantConv1x1: _circulant,
    Conv1x1: _plain,
    EmergingConv: _emerging,
    ExponentialConv: _exponential,
    OrthogonalConv1x1: _orthogonal,
    PeriodicConv: _spectral,
    PLUConv1x1: _plu,
    QRConv1x1: _qr,
    SymmetricConv: _spectral,
}
