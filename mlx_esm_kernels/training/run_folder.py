"""Where a training run keeps what it makes: a folder with one writer, in which nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..system.errors import UserError
from ..weights.adapter import OF_RUNS as ADAPTER
from .config_file import CONFIG

RUNS = Path("runs")
WEIGHTS = "weights.safetensors"
METRICS = "metrics.jsonl"
PLOT = "loss.png"
CHECKPOINTS = "checkpoints"
# What is reported of it elsewhere, see training/reports.py.
WANDB, TENSORBOARD = "wandb", "tensorboard"
LOCK = ".lock"
# What flock raises on file systems (some of a network) that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class RunFolderError(UserError):
    """The folder would cost the weights of another run, or cannot be used."""


class RunFolderWarning(UserWarning):
    """Something about the folder that its owner has to know."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run; a context manager, which lets go of the folder.

    Attributes:
        weights, metrics, plot: their paths; the folder exists, they need not.
        lock: the open file by which this process alone writes there; None: there is none.
    """

    weights: Path
    metrics: Path
    plot: Path
    lock: int | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints; it need not exist."""
        return self.weights.with_name(CHECKPOINTS)

    @property
    def config(self) -> Path:
        """What the run was begun with; it need not exist."""
        return self.weights.with_name(CONFIG)

    @property
    def adapter(self) -> Path:
        """The folder of its adapter, where it trains one in place of weights."""
        return self.weights.with_name(ADAPTER)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.lock is not None:
            # While it is held: whoever waits for the name finds another file behind it.
            self.weights.with_name(LOCK).unlink(missing_ok=True)
            os.close(self.lock)


def open_run_folder(weights_dir: Path | None, weights_file: str | None, *, label: str) -> RunFolder:
    """Make the folder of a run that goes on from `weights_file`, or begins anew where that is None.

    A run of ours that is gone on with (see `is_run`) stays where it is, unless `weights_dir` says
    otherwise: its weights are replaced and its record is continued. Whatever else was given, a file
    of somebody's or the name of a released model, is never written to: like a new run it gets the
    first free folder of runs/LABEL-1, runs/LABEL-2, ... No other process may open the folder until
    this one lets go of it, or ends.

    Raises:
        RunFolderError: `weights_dir` holds weights other than `weights_file`, another run writes
            there, what is there may not be written, or no folder can be made.
    """
    given = None if weights_file is None else Path(weights_file)
    lock = None
    try:
        if weights_dir is not None:
            weights_dir.mkdir(parents=True, exist_ok=True)
            folder = weights_dir
        elif given is not None and is_run(given):
            folder = _real(given).parent if given.is_symlink() else given.parent
        else:
            folder = _make_next(label)
        lock = _lock(folder)
        weights = folder / WEIGHTS
        goes_on = given is not None and is_run(given) and weights.exists()
        goes_on = goes_on and weights.samefile(given or "")
        _require_place(weights, goes_on)
        files = RunFolder(weights, folder / METRICS, folder / PLOT, lock)
        if not goes_on:
            # Not the beginning of this run; and perhaps not even ours.
            for path in (files.metrics, files.plot, folder / WANDB, folder / TENSORBOARD):
                _set_aside(path)
        for path in (files.checkpoints, files.config):
            _set_aside(path)  # of a run that this one is not, or no longer
    except BaseException as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, OSError):
            raise RunFolderError(
                f"No run can be kept in {error.filename}: {error.strerror}. Give another "
                f"--weights-dir."
            ) from None
        raise
    return files


def reopen_run_folder(folder: Path) -> RunFolder:
    """The folder of a run that is gone on with where it stopped; no other process may open it.

    Raises:
        RunFolderError: there is no such folder, another run writes there, or it cannot be used.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is no folder of a run.")
    weights = folder / WEIGHTS
    try:
        lock = _lock(folder)
    except OSError as error:
        raise RunFolderError(f"{error.filename or folder}: {error.strerror}.") from None
    return RunFolder(weights, folder / METRICS, folder / PLOT, lock)


def run_folder_to_read(folder: Path) -> RunFolder:
    """The folder of a run that may still go on, to read in; nothing is locked or made.

    Raises:
        RunFolderError: there is no such folder, or none of a run's files is in it.
    """
    files = RunFolder(folder / WEIGHTS, folder / METRICS, folder / PLOT)
    there = (files.metrics, files.config, files.weights, files.adapter)
    if not any(path.exists() for path in there):
        raise RunFolderError(
            f"{folder} is no folder of a run: it has none of "
            f"{', '.join(path.name for path in there)}. Give the folder that train made, such as "
            f"{RUNS}/sample-1."
        )
    return files


def is_run(weights: Path) -> bool:
    """Whether a path is the weights of a run of ours: called so, with its record beside it."""
    real = _real(weights)
    return real.name == WEIGHTS and real.is_file() and (real.parent / METRICS).is_file()


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _require_place(weights: Path, goes_on: bool) -> None:
    """Refuse to replace what belongs to another run, or what its owner has protected."""
    adapter = weights.with_name(ADAPTER)
    if adapter.exists():
        raise RunFolderError(
            f"{adapter} is there already and would be lost. Give another --weights-dir, or "
            f"--resume {weights.parent} to go on with the run that it is of."
        )
    if not weights.exists():
        return
    if not goes_on:
        raise RunFolderError(
            f"{weights} is there already and would be lost. Give another --weights-dir, or "
            f"--weights-file {weights} to go on from it."
        )
    for place in (weights, weights.parent):
        # For the superuser os.access says yes to everything.
        if not os.access(place, os.W_OK) or not place.stat().st_mode & 0o222:
            raise RunFolderError(
                f"{place} is protected from being written, so no run can go on there. Give "
                f"--weights-dir for a folder of its own, or allow it (chmod u+w {place})."
            )


def _lock(folder: Path) -> int | None:
    """Be the only process that writes there; None where its file system has no locks."""
    path = folder / LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(lock, path):
            os.close(lock)  # the run before was just letting go of it
            return _lock(folder)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        writer = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise RunFolderError(
            f"Another run{f' (process {writer})' if writer else ''} writes in {folder}. Wait for "
            f"it to end, or give another --weights-dir."
        ) from None
    except OSError as error:
        os.close(lock)
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"The file system of {folder} has no locks: see to it yourself that no other run "
            f"writes there.",
            RunFolderWarning,
            stacklevel=3,
        )
        return None
    return lock


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _set_aside(path: Path) -> None:
    """Give a file that stands where one of this run will be another name."""
    if not path.exists():
        return
    for number in count(1):
        other = path.with_name(f"{path.stem}-before-{number}{path.suffix}")
        if not other.exists():
            path.rename(other)
            warnings.warn(f"{path} was there already; it is {other} now.", RunFolderWarning, 3)
            return


def _make_next(label: str) -> Path:
    for number in count(1):
        folder = RUNS / f"{label}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if RUNS.is_dir():
                continue
            raise
        return folder
    raise AssertionError("count() does not end")
