"""Maps that are one C x C matrix a frequency, in the basis of Fourier or of cosines.

Imports `invconv.kernels.primitives`, `solver` and lower modules.
"""
