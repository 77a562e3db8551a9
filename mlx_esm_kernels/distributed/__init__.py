"""The processes of `mlx.launch`: what they tell each other, their common clock and signals."""
