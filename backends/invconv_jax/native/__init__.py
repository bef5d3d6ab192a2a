"""How JAX runs the primitives: convolutions, solves, transforms, and their split over devices."""
