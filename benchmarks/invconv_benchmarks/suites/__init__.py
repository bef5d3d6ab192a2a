"""What is measured: groups of maps and shapes, and the arithmetic that a map needs.

May import the core alone.
"""
