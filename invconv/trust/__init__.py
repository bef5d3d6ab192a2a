"""Errors of inverses: norms, condition numbers, bounds and measurements of maps."""
