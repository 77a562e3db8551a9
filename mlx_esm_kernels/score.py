"""`python -m mlx_esm_kernels.score`; the command itself is commands/score.py."""

from .commands.score import command

if __name__ == "__main__":
    command()
