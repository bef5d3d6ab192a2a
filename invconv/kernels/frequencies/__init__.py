"""Maps that are one matrix per frequency; may import the primitives, `matrices` and `cpu`."""
