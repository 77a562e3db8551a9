"""`python -m mlx_esm_kernels.doctor`; the command itself is commands/doctor.py."""

from .commands.doctor import command

if __name__ == "__main__":
    command()
