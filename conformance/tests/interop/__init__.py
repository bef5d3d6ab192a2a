"""Drop-ins for flow libraries, in the real packages.

Imports invconv_torch, invconv_jax and those packages.
"""
