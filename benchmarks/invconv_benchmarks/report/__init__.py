"""Results for readers: tables, pictures, pages. May import `results` and the rooms below it."""
