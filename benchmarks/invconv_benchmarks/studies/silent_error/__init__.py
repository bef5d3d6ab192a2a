"""Is there an inverse that is wrong and says nothing? Constructions and random operators.

May import what the other studies may.
"""
