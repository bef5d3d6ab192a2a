"""The plain wavefront, where no kernel is compiled: a matrix product a wavefront, on any library.

May import `invconv.arrays.namespaces`, the primitives and causal stencils.
"""
