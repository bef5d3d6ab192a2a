"""Results for readers: tables, a picture, the HTML page, the README's table.

May import `results` and the rooms below it; extends the template of `invconv_conformance.pages`.
"""
