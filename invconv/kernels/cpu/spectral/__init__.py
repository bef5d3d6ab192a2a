"""Products with a matrix a frequency and pivots, compiled; may import all of `cpu`."""
