"""Maps that frequencies decouple: one C x C matrix each, in the basis of Fourier or of cosines.

Imports `invconv.kernels.primitives`, `solver` and what is below them.
"""
