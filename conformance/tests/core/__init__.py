"""The core on NumPy: parameters, errors, singular operators, random ones, threads.

Imports invconv and the suite's oracle.
"""
