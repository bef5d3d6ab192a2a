"""The array libraries: what one is, the capability table, and what worker processes inherit.

Imports nothing else of ours but `invconv`.
"""

from invconv_conformance.libraries.table import LIBRARIES, Target, target_of, targets

__all__ = ["LIBRARIES", "Target", "target_of", "targets"]
