"""Evaluation of a trained model: bits/dim, round trips, samples and the time they take.

May import `data`, `models`, `recipes`, and the rooms below `density`.
"""
