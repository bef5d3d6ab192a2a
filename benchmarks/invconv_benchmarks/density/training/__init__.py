"""The steps of a run, the loop around them, what stops it, and how far it is.

May import `data`, `models`, `recipes` and `evaluation`.
"""
