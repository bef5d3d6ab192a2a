"""Run a law's test without setup and teardown, of which it has none.

`invconv_conformance.command` takes it in, for a tenth of the time; others' plugins may need all.
"""

import pytest

from invconv_conformance.plugin import LawTest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Call, and report that."""
    if not isinstance(item, LawTest):
        return None
    run = item.ihook.pytest_runtest_call
    call = pytest.CallInfo.from_call(lambda: run(item=item), "call", reraise=(KeyboardInterrupt,))
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    item.ihook.pytest_runtest_logreport(report=report)
    return True
