"""A run as a module of Lightning, its training, and the causes that stop it."""
