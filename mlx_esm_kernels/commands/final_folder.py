"""`--hugging-face` of `train`: the weights at the end of a run as a folder for transformers."""

from __future__ import annotations

from pathlib import Path

import click

from ..data.alphabet import Alphabet
from ..models.config import ESM1Config
from ..models.esm1 import ESM1
from ..system.console import say
from ..system.whole_file import OutputError, require_new_folder
from ..weights import save_hugging_face
from ..weights.hugging_face_writing import require_in_transformers
from .errors import errors_of_flag
from .written_weights import say_written

_FLAG = "--hugging-face"


def parse_folder(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A path that holds in any folder, as `--resume` may be said in another one; `none` is none."""
    return None if value is None or str(value) == "none" else value.absolute()


def require_final_folder(
    folder: Path | None,
    config: ESM1Config,
    alphabet: Alphabet,
    *,
    is_adapter: bool,
    made: Path | None = None,
) -> None:
    """Refuse a folder that could not be written at the end, before the work is done.

    Args:
        folder: of the flag; None: nothing is asked for.
        config, alphabet: of the model.
        is_adapter: the run trains an adapter, not the model.
        made: the folder of the run, if it is made later; `folder` may be in it.

    Raises:
        BadParameter: it cannot be written, something is in it, transformers' ESM is another
            network, or there are no weights to write.
    """
    if folder is None:
        return
    with errors_of_flag(_FLAG):
        if is_adapter:
            raise OutputError(
                f"{folder} would be of a whole model, and --lora-rank trains an adapter; leave it "
                f"out, and when the run is done: mlx-esm fuse --to hugging-face."
            )
        require_in_transformers(folder, config, alphabet)
        if made is None or made.exists() or folder.parent != made.absolute():
            require_new_folder(folder)


def write_final_folder(folder: Path | None, model: ESM1, stopped_by: int | None) -> None:
    """Write the weights of a run that has come to its end.

    One that a signal has stopped goes on with --resume, and has other weights then.

    Raises:
        OutputError: it cannot be written.
    """
    if folder is None:
        return
    if stopped_by is not None:
        say(f"   {folder} is written at the end of the run: go on with --resume")
        return
    save_hugging_face(folder, model)
    say_written(folder, model)
