"""Each planted fault is caught: by laws of ``--quick``, or by the test that it names."""

import pytest

from tests.suite.planted_faults import Fault, copied, load

FAULTS = load()
DEFAULT = (
    "the pair transposed without being exchanged",
    "a stale halo before the first part of a strip",
)
CHOSEN = [
    pytest.param(fault, id=fault.name, marks=[] if fault.name in DEFAULT else pytest.mark.slow)
    for fault in FAULTS
]


@pytest.mark.parametrize("fault", CHOSEN)
def test_it_is_caught(fault: Fault) -> None:
    catch = fault.caught_by()
    print(catch)  # -rA shows it
    assert catch


def test_the_faults_are_distinct_and_still_fit() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
    assert {*DEFAULT} <= {fault.name for fault in FAULTS}
    with copied() as folder:
        for fault in FAULTS:
            fault.planted(folder)
