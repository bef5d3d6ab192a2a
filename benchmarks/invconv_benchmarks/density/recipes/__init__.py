"""A run as files: the recipe, the presets that recipes come from, and the checkpoint.

May import `models`.
"""
