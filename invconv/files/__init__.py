"""Saving and loading operators and flows: descriptions, checked schemas, whole files.

Imports every room but the commands.
"""
