"""`python -m mlx_esm_kernels.view`; the command itself is commands/view.py."""

from .commands.view import command

if __name__ == "__main__":
    command()
