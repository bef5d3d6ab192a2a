"""Cases, an oracle and laws: what every array library must agree on.

Rooms, from the top: the commands; fuzz, golden, report; pages; run; laws; libraries, cases, truth.
A room imports those after it and `invconv`, never those before it. `arguments` imports nothing.
"""
