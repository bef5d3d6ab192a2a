"""The conformance suite catches every fault that is planted into the core."""

from __future__ import annotations

import pytest

from tests.suite.planted_faults import FAULTS, Fault, judge


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_it_is_caught(fault: Fault) -> None:
    sound, verdict = judge(fault)
    assert sound.status == 0, sound.output
    assert verdict.caught, f"laws broken: {verdict.laws}; {verdict.output}"


def test_the_faults_are_distinct_and_everywhere() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    assert len({fault.file for fault in FAULTS}) >= 15
