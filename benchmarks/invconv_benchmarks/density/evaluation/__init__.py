"""What a trained model is worth: bits a dimension, round trips, samples and the time they take.

May import `data`, `models`, `recipes`, and `report.figures`.
"""
