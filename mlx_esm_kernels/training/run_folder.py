"""Where a training run keeps what it makes, so that no run destroys the weights of another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..system.errors import UserError

RUNS = Path("runs")
WEIGHTS = "weights.safetensors"
METRICS = "metrics.jsonl"
PLOT = "loss.png"


class RunFolderError(UserError):
    """The folder would cost the weights of another run, or cannot be made."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        weights, metrics, plot: their paths; the folder exists, they need not.
    """

    weights: Path
    metrics: Path
    plot: Path


def open_run_folder(
    weights_dir: Path | None, weights_file: Path | None, *, label: str
) -> RunFolder:
    """Make the folder of a run that goes on from `weights_file`, or begins anew where that is None.

    Without `weights_dir` a run that goes on stays where it is: its file is replaced and its
    record continued. A new one gets the first free folder of runs/LABEL-1, runs/LABEL-2, ...

    Raises:
        RunFolderError: `weights_dir` holds weights other than `weights_file`, or no folder can be
            made.
    """
    try:
        if weights_dir is not None:
            weights_dir.mkdir(parents=True, exist_ok=True)
            weights = weights_dir / WEIGHTS
        elif weights_file is not None:
            weights = weights_file
        else:
            weights = _make_next(label) / WEIGHTS
        goes_on = weights_file is not None and weights.exists() and weights.samefile(weights_file)
        if weights.exists() and not goes_on:
            raise RunFolderError(
                f"{weights} is there already and would be lost. Give another --weights-dir, or "
                f"--weights-file {weights} to go on from it."
            )
        folder = RunFolder(weights, weights.with_name(METRICS), weights.with_name(PLOT))
        if not goes_on:
            # Left by a run that got no weights: not the beginning of this one.
            folder.metrics.unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"No run can be kept in {error.filename}: {error.strerror}. Give another --weights-dir."
        ) from None
    return folder


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
