"""Random damage to parameter files, and random calls: each ends in a result or a documented error.

Imports `cases` and `libraries`. The parameter files that damage starts from are in `corpus/`.
"""
