"""`python -m mlx_esm_kernels.fuse`; the command itself is commands/fuse.py."""

from .commands.fuse import command

if __name__ == "__main__":
    command()
