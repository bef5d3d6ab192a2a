"""Whether there is a GPU that CuPy can use."""

from __future__ import annotations

import pytest

from invconv_conformance.libraries.table import LIBRARIES

(CUPY,) = [library for library in LIBRARIES if library.name == "cupy"]
without_gpu = pytest.mark.skipif(CUPY.absent() is None, reason="there is a GPU")
