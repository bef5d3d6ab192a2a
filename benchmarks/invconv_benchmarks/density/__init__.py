"""Density models of images: flows of `invconv_torch.flows` trained by Lightning, and compared."""
