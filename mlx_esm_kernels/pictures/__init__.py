"""Pictures, from numbers alone."""
