"""Groups of maps and shapes to measure, and the arithmetic that a map needs.

May import the core alone.
"""
