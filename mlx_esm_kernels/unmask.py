"""`python -m mlx_esm_kernels.unmask`; the command itself is commands/unmask.py."""

from .commands.unmask import command

if __name__ == "__main__":
    command()
