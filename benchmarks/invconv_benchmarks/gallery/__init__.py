"""Short programs that end in a picture, by ``draw(out)``; `command` runs one by its name."""
