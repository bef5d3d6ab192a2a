"""Rows, ratios, verdicts, files. May import `measure` and `suites`."""
