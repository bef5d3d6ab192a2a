"""Products with a matrix per frequency and pivots, compiled; may import all of `cpu`."""
