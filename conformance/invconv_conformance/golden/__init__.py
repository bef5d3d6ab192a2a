"""Golden vectors: inputs, parameters and outputs in files that any language can read.

Imports `cases` and `truth`. The files are `golden-1.json` and
`golden-1.npz`, and of the operators that came later `golden-2.json` and `golden-2.npz`.
"""
