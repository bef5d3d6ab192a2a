"""Mixing layers trained on equal terms: the runs, the result file, its tables and its picture."""
