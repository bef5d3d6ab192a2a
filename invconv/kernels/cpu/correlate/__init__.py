"""Correlations and their gradients by the taps, compiled; may import all of `cpu`."""
