"""Density models of images: what describes one, its layers, and the model that is built of them.

May import `data`.
"""
