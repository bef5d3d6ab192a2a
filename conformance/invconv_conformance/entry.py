"""The entry point of pytest: the plugin, for those who run this suite alone."""

from typing import Any


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Take the plugin in where the suite is named, so that others' options have no rivals."""
    if any(arg.startswith("invconv_conformance") for arg in args):
        early_config.pluginmanager.import_plugin("invconv_conformance.plugin")
