"""`python -m mlx_esm_kernels.train`; the command itself is commands/train.py."""

from .commands.train import command

if __name__ == "__main__":
    command()
