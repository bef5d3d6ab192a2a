"""The site: the READMEs and the guide, the gallery, and a page for every public name."""
