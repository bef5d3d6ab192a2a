"""HTML pages that need nothing else, and their templates. May import nothing of ours."""
