"""Is there an inverse that is wrong and says nothing? Constructions, random operators, hill-climbs.

May import what the other studies may.
"""
