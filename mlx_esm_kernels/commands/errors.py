"""What a person sees of an error: a sentence, which says whether they or we can mend it.

Exit codes: 2 where what was typed is wrong whatever is in the files, 1 where something went wrong,
bugs of ours included.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from click.exceptions import Abort, Exit

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

_DEBUG = "MLX_ESM_KERNELS_DEBUG"
_PACKAGE = Path(__file__).parents[1]


class _Bug(click.ClickException):
    """A mistake of ours, which says that it is one."""

    def __init__(self, error: Exception) -> None:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        super().__init__(
            f"Bug: this is a mistake in mlx-esm-kernels, not yours ({what}{_place(error)}). "
            f"{_DEBUG}=1 in the environment shows the traceback; please report it, with that and "
            f"what mlx-esm doctor --quick says, where you have mlx-esm-kernels from."
        )

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message(), file=file, err=file is None)


def _place(error: Exception) -> str:
    """The line of ours that was last on the way to an error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE) and path != Path(__file__):
            return f", {path.relative_to(_PACKAGE).as_posix()}, line {frame.lineno}"
    return ""


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """A decorator of every command: a UserError, or an OSError about a file or a disk, is one
    sentence and the exit code 1, and a warning is one line.

    All else is a bug of ours, which is never shown as the user's mistake: one sentence that says
    so, and with MLX_ESM_KERNELS_DEBUG set the traceback.
    """
    open_closed_streams()
    with warnings_as_lines():
        try:
            yield
        except (click.ClickException, Exit, Abort, BrokenPipeError):
            raise  # click's own, and the reader that has had enough (`| head`), which click knows
        except Exception as error:
            if os.environ.get(_DEBUG, "0") not in ("", "0"):
                raise
            sentence = _sentence(error)
            raise _Bug(error) if sentence is None else click.ClickException(sentence) from None


def _sentence(error: Exception) -> str | None:
    """What a person is told who can mend it; None where it is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None and error.errno not in _DISK:
            return None
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}."
    advice = _advice(error)
    return None if advice is None else f"{advice} ({error})"


def _advice(error: Exception) -> str | None:
    """What helps where the machine is too small or too busy; None where that is not the cause."""
    if not isinstance(error, (MemoryError, RuntimeError)):
        return None
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
