"""Tests and remedies for inverses that cannot be trusted: diagnose, bounded, the guard."""
