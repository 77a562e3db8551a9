"""The models of the ESM-1 family, and the same in plain MLX as a reference."""
