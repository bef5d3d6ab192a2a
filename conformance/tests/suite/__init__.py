"""The shipped suite itself: verdicts, and the faults that it must catch."""
