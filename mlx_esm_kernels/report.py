"""`python -m mlx_esm_kernels.report`; the command itself is commands/report.py."""

from .commands.report import command

if __name__ == "__main__":
    command()
