"""The other sides of the benchmarks of models, in torch; imported where they are timed."""
