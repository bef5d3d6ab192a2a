"""The benchmark's rows on a CUDA device, with the kernel on the stand-in: they solve K x = y."""

from __future__ import annotations

import pytest

from invconv_benchmarks.contenders import everyone
from invconv_benchmarks.contenders.devices import FINC
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.table import LIBRARIES, Target
from tests.launches.stand_in_driver import Driver


class OnThisProcessor(Target):
    """A CUDA device, whose memory is this processor's."""

    on_cuda = True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_row_solves_and_the_kernels_are_launches(
    dtype: str, on_this_processor: Driver
) -> None:
    (library,) = (library for library in LIBRARIES if library.name == "torch")
    does = ("forward", "inverse", "kernel")
    group = Group("inverse", "corner 2", (2, 3, 6, 5), does, dtype=dtype)
    setup = Setup(group, OnThisProcessor(library, "cpu"))
    launched, bound = {}, 1e-6 if dtype == "float32" else 1e-14
    for contender in everyone.contenders(group, [setup.target]):
        call = contender.build()
        before = len(on_this_processor.launches)
        result = call()
        launched[contender.name] = len(on_this_processor.launches) - before
        if contender.images is not None:
            assert setup.residual(contender.images(result)) < bound, contender.name
    assert launched == {
        "kernel": 1,
        "invconv inverse": 1,
        "invconv forward": 0,
        "wavefront": 0,
        FINC: 0,
        "F.conv2d": 0,
    }
