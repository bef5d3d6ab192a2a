"""How PyTorch runs the primitives, with their derivatives, and a whole call as one node."""
