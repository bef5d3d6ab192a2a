"""The site: the READMEs as a guide, and a page for every public name.

From the top: `command`, `site`, `pages`, `names`. It imports what it documents.
"""
