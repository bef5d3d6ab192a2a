"""The drop-ins held against the rules of the flow libraries, in the real packages.

Imports the cases and the adapters.
"""
