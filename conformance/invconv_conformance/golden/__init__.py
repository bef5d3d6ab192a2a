"""Golden vectors: inputs, parameters and outputs in files that any language can read.

Imports `cases` and `truth`. The files are `golden-1.json` and `golden-1.npz`.
"""
