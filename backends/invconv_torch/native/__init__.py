"""How PyTorch runs the primitives, with their derivatives, and a whole call as one node.

Imports `invconv.solve` and what is below it, `invconv_torch.precision` and `invconv_torch.traced`.
"""
