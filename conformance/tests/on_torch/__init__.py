"""PyTorch: layers, derivatives, compiled and distributed programs, reversible chains."""
