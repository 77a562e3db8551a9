"""The models of the ESM family, and the same in plain MLX as a reference."""
