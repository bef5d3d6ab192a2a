"""Rows, ratios, verdicts, files. May import `measure`, `suites` and `contenders`."""
