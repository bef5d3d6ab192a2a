"""Maps that are one matrix a frequency; may import the primitives, `matrices` and `cpu`."""
