"""Stands for the suite: `invconv_conformance.plugin` collects every law, case and column here."""
