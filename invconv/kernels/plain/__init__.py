"""The plain wavefront, for machines without a compiled kernel: one matrix product a wavefront.

May import `invconv.arrays.namespaces`, the primitives and causal stencils.
"""
