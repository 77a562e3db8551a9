"""What a person sees of an error: a sentence where they can mend it, else the traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..distributed.ranks import Ranks
from ..system.console import mute, open_closed_streams, warnings_as_lines
from ..system.errors import UserError

# A full or broken disk, which a write to an open file reports without the file's name.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
# What MLX says where memory cannot be had, on a CPU and on Metal.
_NO_MEMORY = re.compile(
    r"Unable to allocate|maximum allowed buffer size|bad_alloc|Insufficient Memory", re.IGNORECASE
)
# What MLX's engines say where another process of mlx.launch has gone.
_LOST = re.compile(r"^\[(ring|jaccl|mpi|nccl)\]", re.IGNORECASE)
# What Metal says, through MLX, where macOS has ended work for which the screen had to wait.
_KEPT_WAITING = re.compile(
    r"Command buffer execution failed.*(Impacting Interactivity|GPU Timeout)", re.IGNORECASE
)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """A decorator of every command: a UserError, or an OSError about a file or a disk, is one
    sentence and the exit code 1, and a warning is one line.

    All else is a bug of ours: it keeps its traceback, and is never shown as the user's mistake.
    """
    open_closed_streams()
    with warnings_as_lines():
        try:
            yield
        except UserError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            if error.filename is None and error.errno not in _DISK:
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            raise click.ClickException(f"{where}{error.strerror or error}.") from None
        except (MemoryError, RuntimeError) as error:
            advice = _advice(error)
            if advice is None:
                raise
            raise click.ClickException(f"{advice} ({error})") from None


def _advice(error: Exception) -> str | None:
    """What helps where the machine is too small or too busy; None where that is not the cause."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return (
            "There is not enough memory for this. Shorter proteins, a smaller model or "
            "--dtype bfloat16, fewer tokens a batch or fewer samples take less."
        )
    if _LOST.search(str(error)):
        return (
            "Another process of mlx.launch has ended or cannot be reached any more, so this one "
            "ends too; look for what it has said. A training run goes on from its last checkpoint: "
            "--resume, with any number of processes."
        )
    if _KEPT_WAITING.search(str(error)):
        return (
            "macOS ended the GPU's work, as the screen had to wait for it. Less work at a time "
            "helps: MLX_MAX_OPS_PER_BUFFER=4 in the environment, fewer tokens a batch, a smaller "
            "model; and so does a display that sleeps, or AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1. What "
            "was written until then is whole."
        )
    return None


@contextmanager
def one_speaks(ranks: Ranks) -> Iterator[None]:
    """Within it, the first of several processes alone says lines; an error names whose it is."""
    if not ranks.is_first:
        mute()
    try:
        yield
    except UserError as error:
        if ranks.count == 1:
            raise
        raise UserError(f"process {ranks.number} of {ranks.count}: {error}") from None


@contextmanager
def errors_of_flag(flag: str) -> Iterator[None]:
    """Within it, a UserError is about the value of a flag: click names it, with the exit code 2."""
    try:
        yield
    except UserError as error:
        raise click.BadParameter(str(error), param_hint=flag) from None
