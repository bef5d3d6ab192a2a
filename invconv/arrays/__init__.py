"""What the core asks of an array library: namespaces, dtypes, stencils, registry, validation."""
