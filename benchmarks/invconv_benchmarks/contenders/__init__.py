"""The calls that are timed: ours, plain convolutions, and what a user could run instead.

May import `measure` and `suites`.
"""
