"""Operators in files: as they were, hostile ones, and writes that are cut off."""
