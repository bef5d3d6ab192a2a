"""Eight short programs, each of which ends in a picture: `command` runs one by its name.

Each has ``draw(out)``, prints what it found and imports what invconv's users can.
"""
