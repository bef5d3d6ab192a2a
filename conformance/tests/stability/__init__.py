"""When an inverse cannot be right, and what is promised of those that can."""
