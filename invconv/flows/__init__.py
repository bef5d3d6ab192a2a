"""A flow of images, for any library: its architecture, its maps and its density."""
