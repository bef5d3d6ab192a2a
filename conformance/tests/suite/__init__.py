"""The shipped suite itself: verdicts, and faults that it must catch.

Imports invconv_conformance.
"""
