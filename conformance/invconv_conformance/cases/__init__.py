"""The list of cases, and random operators of every family. Imports `truth` and `invconv`."""
