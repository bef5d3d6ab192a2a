"""Recipes of runs, the presets in `presets.toml`, and the checkpoint that describes a run."""
