"""Groups of maps and shapes to measure. May import the core alone."""
