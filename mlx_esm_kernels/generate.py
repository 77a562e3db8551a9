"""`python -m mlx_esm_kernels.generate`; the command itself is commands/generate.py."""

from .commands.generate import command

if __name__ == "__main__":
    command()
