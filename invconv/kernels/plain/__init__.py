"""Plain wavefronts, and the tables with which libraries run causal solves and correlations.

May import `invconv.arrays`, the primitives and causal stencils.
"""
