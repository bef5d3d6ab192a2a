"""Worker processes, and the schedule of their passes. May import `results` and what it may."""
