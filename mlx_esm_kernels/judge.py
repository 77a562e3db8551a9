"""`python -m mlx_esm_kernels.judge`; the command itself is commands/judge.py."""

from .commands.judge import command

if __name__ == "__main__":
    command()
