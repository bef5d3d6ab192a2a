"""The invertible convolutions that users hold, one file per class; `base` derives all methods."""
