"""Results for readers: tables, pictures, the HTML page, the README's table, changes of two results.

May import `results` and the rooms below it; extends the template of `invconv_conformance.pages`.
"""
