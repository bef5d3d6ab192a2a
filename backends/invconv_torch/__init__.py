"""PyTorch adapter of invconv."""
