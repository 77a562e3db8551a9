"""`python -m mlx_esm_kernels.embed`; the command itself is commands/embed.py.

Nothing imports this module: `mlx_esm_kernels.embed` is the function, and to import a module of the
same name would put the module in its place.
"""

from .commands.embed import command

if __name__ == "__main__":
    command()
