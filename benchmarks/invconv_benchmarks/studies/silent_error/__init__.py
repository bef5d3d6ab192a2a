"""Is there an inverse that is wrong and says nothing? May import what other studies may."""
