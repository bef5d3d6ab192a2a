"""Below all mathematics: namespaces and dtypes of arrays, registry, stencils, validation."""
