"""Saving and loading operators: descriptions, checked schemas, whole files.

Imports everything but the commands.
"""
