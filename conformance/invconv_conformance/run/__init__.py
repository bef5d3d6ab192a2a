"""What is checked, one law on one case in one column, and what comes out. Imports `laws`."""
