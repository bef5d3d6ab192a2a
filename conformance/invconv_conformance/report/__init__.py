"""A run as terminal tables and as JSON, and how far libraries agree. Imports `run`."""
