"""The true values in extended precision, from the definitions, and the bounds of rounding errors.

Imports nothing else of ours; of `invconv` only the classes and their public fields.
"""
