"""The site: the READMEs as a guide, the gallery, and a page for every public name.

From the top: `command`, `pages`, `names`. It imports what it documents, and the gallery.
"""
