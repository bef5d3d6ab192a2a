"""Measurements that compare libraries, devices and layers; `command` is ``invconv benchmark``.

The rooms, from the bottom: options, measure, suites, contenders, results, runs, report, studies,
demo, density, command. Each may import those before it, `invconv_conformance` and the adapters.
"""
