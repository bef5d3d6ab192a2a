"""Density models: data, recipes, training, checkpoints, comparisons. Imports PyTorch."""
