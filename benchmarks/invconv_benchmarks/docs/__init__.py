"""The site: the READMEs and the guide, the gallery, and a page for every public name.

From the top: `command`, `pages`. It imports what it documents, and the gallery.
"""
