"""Run a law's test without setup and teardown, of which it has none.

`invconv_conformance.command` takes it in: two of three reports a test fall away, which took a
tenth of the time. Others' plugins may need all three.
"""

from __future__ import annotations

import pytest

from invconv_conformance.plugin import LawTest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Call, and report that."""
    if not isinstance(item, LawTest):
        return None
    hooks = item.ihook
    call = pytest.CallInfo.from_call(
        lambda: hooks.pytest_runtest_call(item=item), "call", reraise=(KeyboardInterrupt,)
    )
    hooks.pytest_runtest_logreport(report=hooks.pytest_runtest_makereport(item=item, call=call))
    return True
