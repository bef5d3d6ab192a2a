"""Saving and loading operators and flows: descriptions, checked schemas, whole files."""
