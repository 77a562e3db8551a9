"""`--to`: what a model is written as, by the commands that write one."""

from __future__ import annotations

from pathlib import Path

import click

from ..models.esm1 import ESM1, describe
from ..system.console import say
from ..system.whole_file import OutputError, require_new_folder, require_writable
from ..weights import save_hugging_face, save_weights
from ..weights.hugging_face_writing import new_in_transformers
from .choice import Choice

SAFETENSORS, HUGGING_FACE = "safetensors", "hugging-face"

to_option = click.option(
    "--to",
    "form",
    type=Choice([SAFETENSORS, HUGGING_FACE]),
    default=SAFETENSORS,
    show_default=True,
    help="A .safetensors file of ours, or a new folder that Hugging Face's transformers loads "
    "(ESM-1b, ESM-1v and ESM-2).",
)


def require_output(path: Path, form: str) -> None:
    """Refuse what `write_model` could not write, before the work is done.

    Raises:
        OutputError: it cannot be written, or something is in the folder already.
    """
    if form == HUGGING_FACE:
        require_new_folder(path)
        return
    require_writable(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} must end in .safetensors.")


def write_model(path: Path, model: ESM1, form: str) -> None:
    """Write a model as a file of ours or as a folder of transformers, and say what came of it.

    Raises:
        OutputError: it cannot be written, or transformers' ESM is another network.
    """
    if form == HUGGING_FACE:
        save_hugging_face(path, model)
    else:
        save_weights(path, model)
    contacts = "with" if model.config.contact_head else "without"
    say(f"   {describe(model)}, {contacts} a contact regression")
    say_written(path, model)


def say_written(path: Path, model: ESM1) -> None:
    """Say where a model went; of a folder, also what transformers will miss."""
    files = list(path.iterdir()) if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    say(f"💾 saved to {path} ({size / 1e6:,.1f} MB)")
    if path.is_dir() and (new := new_in_transformers(model.config)):
        say(f"   {new}")
