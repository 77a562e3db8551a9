"""`python -m mlx_esm_kernels.evaluate`; the command itself is commands/evaluate.py.

Nothing imports this module: `mlx_esm_kernels.evaluate` is the function, and to import a module of
the same name would put the module in its place.
"""

from .commands.evaluate import command

if __name__ == "__main__":
    command()
