"""The list of cases, each an operator on a grid, and random operators of every family.

Imports nothing else of ours but `invconv`.
"""

from invconv_conformance.cases.table import CASES

__all__ = ["CASES"]
