"""`python -m mlx_esm_kernels.contacts`; the command itself is commands/contacts.py."""

from .commands.contacts import command

if __name__ == "__main__":
    command()
