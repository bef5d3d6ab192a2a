"""The shipped suite itself: verdicts, golden values, fuzzing, and faults that it must catch.

Imports invconv_conformance.
"""
