"""The project as users meet it: wheel, README, command line.

Imports invconv; most run a process of their own.
"""
