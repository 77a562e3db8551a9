"""`python -m mlx_esm_kernels.fit`; the command itself is commands/fit.py."""

from .commands.fit import command

if __name__ == "__main__":
    command()
