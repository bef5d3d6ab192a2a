"""Operators with a bounded inverse: |K^-1|_2 <= g for every value of the parameters."""

from functools import partial
from typing import TypeVar

from invconv.arrays.namespaces import cast
from invconv.arrays.validation import finite_or_nan
from invconv.operators.base.factors import require_operator
from invconv.operators.base.operator import InvertibleConv
from invconv.trust.limits import ROOM

C = TypeVar("C", bound=InvertibleConv)


def bounded(conv: C, max_gain: float) -> C:
    """Return an operator of the same class; its inverse has a 2-norm of at most ``max_gain``.

    Its arrays have the names and shapes of ``conv``'s.
    The bound holds at every image size and for every value of ``conv``'s arrays, to rounding in
    their dtype (half types are mapped in float32), as long as the norms of the arrays do not
    overflow: ``|x - x'| <= max_gain |y - y'|`` for the inverses x, x' of y, y'. So train the arrays
    of ``conv`` freely and use ``bounded(conv, max_gain)`` in its place; it is differentiable, and
    close to ``conv`` if ``conv`` is far below the bound.

    Each of the n steps of a chain gets the gain ``max_gain ** (1 / n)``. Diagonals become positive:
    the scale of an autoregressive kernel or of QR is read as 1 plus a small number v, and becomes
    about exp(v). `invconv.trust.gains` has the mathematics.

    The result remembers ``conv`` and the gain: `save` writes both, and `load` bounds again, by
    NumPy; where that gives other arrays, `save` raises. A copy by ``replace`` has no bound.

    Parameters
    ----------
    conv : InvertibleConv
        An operator of any class but `Inverse`: its inverse is another operator's forward map.
    max_gain : float
        More than 1: 10 costs the last digit. Biases do not matter.

    Raises
    ------
    TypeError
        For an operator without such a parametrisation.
    ValueError
        Unless ``max_gain`` is finite and at least 1 + 1e-9.

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
    if not gain >= 1 + ROOM:
        raise ValueError(
            f"max_gain: expected a finite number above 1, by {ROOM:g} at least, "
            f"got {max_gain!r:.80}"
        )
    require_operator("conv", conv)
    working = conv._in_working_precision()
    limited = working.within(gain)
    if working is not conv:
        limited = limited._cast(partial(cast, dtype=conv._reference()[1].dtype))
    if limited is conv:  # bounded already: a copy remembers the bound
        limited = conv.replace()
    vars(limited)["_bounded_from"] = conv.replace() if conv._bounded_from else conv, gain
    return limited
