"""Launches of the CUDA kernel by each library, on a stand-in for the driver."""
