"""`python -m mlx_esm_kernels.convert`; the command itself is commands/convert.py."""

from .commands.convert import command

if __name__ == "__main__":
    command()
