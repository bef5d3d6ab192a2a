"""The shipped suite itself: verdicts, golden values, and faults that it must catch.

Imports invconv_conformance.
"""
