"""The laws: what an operator must do on every library, device and dtype, each with its bound.

Imports `libraries`, `cases` and `truth`.
"""

from invconv_conformance.laws.table import LAWS

__all__ = ["LAWS"]
