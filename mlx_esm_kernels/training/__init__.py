"""Training a model: the loop, its state, its steps, validation, and the run's folder."""
