"""How solves and correlations run: compiled, plain, in threads, and where llvmlite is absent."""
