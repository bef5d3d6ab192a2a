"""The core: parameters, errors, singular operators, borders, filters, random settings."""
