"""Cases, an oracle and laws: what every array library must agree on.

Rooms, from the top: the commands; fuzz, golden, report; run; laws; cases, libraries, pages, truth.
A room imports those after it and `invconv`, none before or beside it. `arguments` imports nothing.
"""
