"""The laws: what an operator must do on every library, device and dtype, each with its bound.

A law takes a `Setting` (a case on a library, device, mode and dtype) and yields `Measure`s: an
error, and the bound that it must keep, in the same units. A law about behaviour measures 0 or 1.
The room imports `libraries`, `cases` and `truth`.
"""

from invconv_conformance.laws import behaviour, functions, sharing, trust, values
from invconv_conformance.laws.law import Law

_MODULES = (values, trust, behaviour, sharing, functions)
LAWS: dict[str, Law] = {
    law.id: law for module in _MODULES for law in vars(module).values() if isinstance(law, Law)
}
