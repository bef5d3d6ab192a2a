"""True values in extended precision, and bounds of errors. Imports classes of `invconv` alone."""
