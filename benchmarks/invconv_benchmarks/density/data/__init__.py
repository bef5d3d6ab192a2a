"""Images: data sets that packages ship, the user's files, batches, and their dequantisation."""
