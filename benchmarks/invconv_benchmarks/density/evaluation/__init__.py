"""Bits/dim of a trained model, its round trips, its samples, and the time of samples."""
