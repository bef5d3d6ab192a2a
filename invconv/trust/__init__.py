"""How many digits an inverse is good for: norms and condition numbers of maps, in float64.

Imports `invconv.solve` and what is below it, and knows no class of operators.
"""
