"""A run as a module of Lightning, its training, what stops it, and what it says of itself.

May import `data`, `models`, `recipes` and `evaluation`.
"""
