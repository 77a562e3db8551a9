"""Files and folders that appear whole or not at all, and what stands in the way, in a sentence."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError


class OutputError(UserError, OSError):
    """A file that cannot be written; the message names it and says why.

    It is an OSError too: that is what a caller of the library expects of a file.
    """


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is written there takes the place of `path` at the end.

    It is on the disk itself before it does. If the block is left by an exception, `path` is as it
    was before and nothing is left behind. A symbolic link is followed. A pipe or a device, which
    no file may replace, is written to as it is.

    Raises:
        OutputError: it cannot be written.
    """
    with output_errors(path):
        target = _followed(path)
        if target.is_fifo() or target.is_char_device():
            yield target
            return
        # Two processes, or two threads, may write the same file; one of them wins.
        half_done = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            yield half_done
            sync(half_done)
            os.replace(half_done, target)
        finally:
            with suppress(OSError):
                half_done.unlink()
        sync(target.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write files into, which has the name `path` at the end.

    They are on the disk themselves before it does. If the block is left by an exception there is no
    folder; a process that is killed leaves one whose name begins with a dot.

    Raises:
        OutputError: it cannot be written, or something is there already.
    """
    with output_errors(path):
        half_done = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        half_done.mkdir()
        try:
            yield half_done
            for file in half_done.iterdir():
                sync(file)
            sync(half_done)
            half_done.rename(path)
        except BaseException:
            shutil.rmtree(half_done, ignore_errors=True)
            raise
        sync(path.parent)


def _followed(path: Path) -> Path:
    """Where a symbolic link leads; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError within the block into an OutputError about `path`."""
    try:
        yield
    except OutputError:
        raise  # a sentence already
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from None


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written before the work is done, not after it.

    Raises:
        OutputError: its folder is missing, it is a folder, or one of them may not be written.
    """
    target = _followed(path)
    if not target.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {target.parent}.")
    if target.is_dir():
        raise OutputError(f"{path} cannot be written: it is a folder.")
    # The folder too where the file is there: the new file is made beside the old one.
    for place in (target.parent, target):
        if place.exists() and not os.access(place, os.W_OK):
            raise OutputError(f"{path} cannot be written: {place} may not be changed.")


# What folders of weights, adapters and heads are read from. Results of earlier commands beside
# that, such as evaluation.json or new.fasta, may be written again.
_READ_IN_FOLDERS = re.compile(
    r"config\.(json|toml)|.*_config\.json|.*\.index\.json|head\.json|predictions\.csv"
    r"|.*\.(safetensors|npz|pt|bin)"
)


def require_no_input(path: Path, *given: str | Path | None) -> None:
    """Refuse a file to write that is also one to read.

    Args:
        path: what is to be written.
        given: what is read: files, folders, or None. What is not there, as the name of a model or
            standard input, is no file that could be lost.

    Raises:
        OutputError: it is one of them, or what one of the folders is read from.
    """
    if not path.exists():
        return
    for place in (Path(one) for one in given if one is not None):
        if place.exists() and path.samefile(place):
            raise OutputError(f"{path} is the input too; give the output another name.")
        inside = place.iterdir() if place.is_dir() else ()
        read = (one for one in inside if _READ_IN_FOLDERS.fullmatch(one.name) and one.exists())
        if any(path.samefile(one) for one in read):
            raise OutputError(f"{path} is part of the input {place}; give another name.")


def require_new_folder(path: Path) -> None:
    """Refuse a folder that `whole_folder` could not make, before the work is done.

    Raises:
        OutputError: there is something in it already, it is a file or the working folder, or the
            folder around it is missing or may not be written.
    """
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise OutputError(f"{path} has something in it already; give a new folder.")
        if path.samefile(Path.cwd()):
            # The new folder takes the place of the old one, in which a shell would then be left.
            raise OutputError(f"{path} is the folder that you are in; give a new one.")
    elif path.exists() or path.is_symlink():
        raise OutputError(f"{path} cannot be written: it is there already and is no folder.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: {path.parent} may not be changed.")
