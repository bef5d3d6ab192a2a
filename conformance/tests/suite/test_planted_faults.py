"""The conformance suite catches every fault in the core, and named tests those in flows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.suite import flow_faults
from tests.suite.flow_faults import FLOW_FAULTS, FlowFault
from tests.suite.planted_faults import FAULTS, ROOT, Fault, copied, judge, path_of

# one in 109 by default, all of them in the slow run
SOME = [
    pytest.param(fault, marks=[] if i % 109 == 0 else pytest.mark.slow, id=fault.name)
    for i, fault in enumerate(FAULTS)
]


@pytest.mark.parametrize("fault", SOME)
def test_it_is_caught(fault: Fault) -> None:
    sound, verdict = judge(fault)
    assert sound.status == 0, sound.output
    assert verdict.caught, f"laws broken: {verdict.laws}; {verdict.output}"


def test_the_faults_are_distinct_and_everywhere_and_still_fit() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    assert len({fault.file for fault in FAULTS}) >= 15
    with copied() as folder:
        for fault in FAULTS:
            text = path_of(Path(folder), fault.file).read_text(encoding="utf-8")
            assert text.count(fault.old) == 1, fault.name
        next(fault for fault in FAULTS if fault.plain).plant(Path(folder))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FLOW_FAULTS, ids=lambda fault: fault.name)
def test_a_test_of_flows_finds_it(fault: FlowFault) -> None:
    sound, said = flow_faults.judge_sound(), flow_faults.judge(fault)
    assert sound.status == 0, sound.output
    assert said.status == 1, said.output


def test_faults_of_flows_are_distinct_and_still_fit() -> None:
    assert len({fault.name for fault in FLOW_FAULTS}) == len(FLOW_FAULTS) >= 20
    with copied() as folder:
        for fault in FLOW_FAULTS:
            text = path_of(Path(folder), fault.file).read_text(encoding="utf-8")
            assert text.count(fault.old) == 1, fault.name
            file, _, test = fault.test.partition("::")
            path = ROOT / flow_faults.FLOWS / file
            assert f"def {test.partition('[')[0]}(" in path.read_text(encoding="utf-8"), test
