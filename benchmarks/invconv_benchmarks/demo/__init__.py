"""``invconv demo`` and ``invconv diagnose``: real images, and kernels whose inverse grows.

May import `measure` and `report`.
"""
