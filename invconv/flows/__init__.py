"""What a flow of images is, whatever the library: its architecture, its maps and its density.

Imports `invconv.operators` and what is below it.
"""
