"""How PyTorch runs the primitives, with their derivatives, and a whole call as one node.

Imports the core, `invconv_torch.precision` and `invconv_torch.traced`.
"""
