"""`python -m mlx_esm_kernels.predict`; the command itself is commands/predict.py."""

from .commands.predict import command

if __name__ == "__main__":
    command()
