"""Proteins from files to batches, in numpy: nothing here knows MLX."""
