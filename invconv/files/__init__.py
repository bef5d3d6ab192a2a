"""Saving and loading operators: descriptions, checked schemas, whole files.

Imports every room but the commands.
"""
