"""The invertible convolutions that users hold, one file per class.

Imports `invconv.trust` and lower rooms. `base` derives all methods; `pointwise` has the 1x1
convolutions.
"""
