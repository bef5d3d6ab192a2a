"""CUDA without a device: launches by each library on a stand-in, and what would wait."""
