"""The base of every operator: parameters, calls, the protocol of a class, and public methods."""
