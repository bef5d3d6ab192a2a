"""Results for readers: tables, figures, a page. May import `results` and the rooms below it."""
