"""One matrix at every pixel: 1x1 convolutions in their parametrisations, and actnorm."""
