"""The golden vectors in ``conformance/golden``: one reader, one writer, and whether they hold."""
