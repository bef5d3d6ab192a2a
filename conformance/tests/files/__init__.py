"""Operators in files: as they were, hostile ones, and writes that are cut off.

Imports invconv.files and the libraries whose arrays come back.
"""
