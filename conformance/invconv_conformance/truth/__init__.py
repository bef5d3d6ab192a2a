"""True values, most in extended precision, and bounds of errors. Imports `invconv` alone."""
