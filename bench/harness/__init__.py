"""What the benchmarks share: their flags, how functions are timed, what models' sides have."""
