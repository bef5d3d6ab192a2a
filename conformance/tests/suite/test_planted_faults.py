"""The conformance suite catches every fault that is planted into the core."""

from __future__ import annotations

import pytest

from tests.suite.planted_faults import FAULTS, Fault, judge

# one in 41 by default, all of them in the slow run
SOME = [
    pytest.param(fault, marks=[] if i % 41 == 0 else pytest.mark.slow, id=fault.name)
    for i, fault in enumerate(FAULTS)
]


@pytest.mark.parametrize("fault", SOME)
def test_it_is_caught(fault: Fault) -> None:
    sound, verdict = judge(fault)
    assert sound.status == 0, sound.output
    assert verdict.caught, f"laws broken: {verdict.laws}; {verdict.output}"


def test_the_faults_are_distinct_and_everywhere() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    assert len({fault.file for fault in FAULTS}) >= 15
