"""Families of invertible maps, of which operators are made, and lists of them."""
