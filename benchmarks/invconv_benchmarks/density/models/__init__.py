"""Density models of images: what describes one, its layers, the model built of them, its name.

May import `data`.
"""
