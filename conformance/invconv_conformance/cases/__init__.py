"""The list of cases. Imports `truth` and `invconv`."""
