"""Text to packed rows: sources, filters, long sequences, generated drills, mixing. Only `batches` imports torch."""
