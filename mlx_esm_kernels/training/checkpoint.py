"""Checkpoints: all that a run needs to go on bit for bit, in a folder each, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..distributed.ranks import Ranks
from ..system.errors import UserError
from ..system.whole_file import output_errors, whole_folder
from ..weights.safetensors_file import write_safetensors
from .recipe import Recipe
from .run_folder import WEIGHTS
from .settings import Progress
from .state import Snapshot

ARRAYS, STATE = "arrays.safetensors", "state.json"
FORMAT = "mlx-esm-kernels checkpoint 1"
_NAME = re.compile(r"step-(\d+)")


class CheckpointError(UserError):
    """There is nothing to go on from, or what there is cannot be used."""


class CheckpointWarning(UserWarning):
    """A checkpoint was left aside."""


@dataclass(frozen=True)
class Every:
    """How often: after so many steps, or so many seconds; both None: never."""

    steps: int | None = None
    seconds: float | None = None

    def is_due(self, steps: int, seconds: float) -> bool:
        """After `steps` steps of the run, and `seconds` since the last time."""
        by_steps = self.steps is not None and steps % self.steps == 0
        return by_steps or (self.seconds is not None and seconds >= self.seconds)


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of a run go, how often, how many stay, and what it was begun with."""

    folder: Path
    every: Every
    keep: int
    recipe: Recipe


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps.

    Attributes:
        snapshot: what the next step depends on.
        progress: what the run has behind it.
        recipe: what it was begun with.
        rows: rows of metrics.jsonl until then.
        window: the steps since the last of these rows, as `Window.state` gives them.
    """

    snapshot: Snapshot
    progress: Progress
    recipe: Recipe
    rows: int
    window: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint into `folder`, and remove all but the last `keep`.

    Returns:
        Its folder, `step-N`.

    Raises:
        OutputError: it cannot be written; those that are there stay.
    """
    step = checkpoint.snapshot.numbers["step"]
    target = folder / f"step-{step:09d}"
    with output_errors(target):
        folder.mkdir(exist_ok=True)
        _remove_half_done(folder)
    if not target.exists():
        with whole_folder(target) as half_done:
            write_safetensors(half_done / ARRAYS, checkpoint.snapshot.arrays, {}, name=target.name)
            content = {
                "format": FORMAT,
                "version": importlib.metadata.version("mlx-esm-kernels"),
                "arrays": _digest(half_done / ARRAYS),
                **_content(checkpoint),
            }
            (half_done / STATE).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    for old in _all(folder)[:-keep]:
        # A name that none reads first: a half-removed one is no checkpoint.
        gone = old.rename(old.with_name(f".{old.name}.old"))
        shutil.rmtree(gone, ignore_errors=True)
    return target


def newest_checkpoint(folder: Path) -> Checkpoint:
    """The last checkpoint that is whole; one that is damaged is set aside, with a warning.

    Raises:
        CheckpointError: there is none.
    """
    for path in reversed(_all(folder)):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            aside = path.rename(path.with_name(f"damaged-{path.name}"))
            warnings.warn(
                f"{error} It is {aside} now; the one before it is used.",
                CheckpointWarning,
                stacklevel=2,
            )
    weights = folder.with_name(WEIGHTS)
    advice = "See --checkpoint-every."
    if weights.exists():
        advice = (
            f"To train on from weights alone, with new moments and masks: --weights-file {weights}."
        )
    raise CheckpointError(f"{folder} has no checkpoint to go on from. {advice}")


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint by its folder.

    Raises:
        CheckpointError: it is damaged, or something else.
    """
    try:
        content = json.loads((path / STATE).read_text("utf-8"))
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path} is of another format, {content['format']!r}.")
        if _digest(path / ARRAYS) != content["arrays"]:
            raise CheckpointError(f"{path} is damaged: {ARRAYS} is not what was written.")
        arrays = mx.load(str(path / ARRAYS))
        assert isinstance(arrays, dict)
        return _checkpoint(arrays, content)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint of ours: {error}.") from None


def share_checkpoint(checkpoint: Checkpoint | None, ranks: Ranks) -> Checkpoint:
    """The first process's checkpoint; the others need have no file of it, and give None."""
    if ranks.count == 1:
        assert checkpoint is not None
        return checkpoint
    header = b""
    if checkpoint is not None:
        shapes = [
            (name, array.shape, str(array.dtype).removeprefix("mlx.core."))
            for name, array in checkpoint.snapshot.arrays.items()
        ]
        header = json.dumps({**_content(checkpoint), "shapes": shapes}).encode()
    content = json.loads(ranks.of_first(header))
    if checkpoint is None:
        arrays = {name: mx.zeros(shape, getattr(mx, t)) for name, shape, t in content["shapes"]}
    else:
        arrays = checkpoint.snapshot.arrays
    found = ranks.arrays_of_first(list(arrays.values()))
    return _checkpoint(dict(zip(arrays, found, strict=True)), content)


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    """All but the arrays, ready for json."""
    return {
        "numbers": checkpoint.snapshot.numbers,
        "progress": asdict(checkpoint.progress),
        "recipe": checkpoint.recipe.to_dict(),
        "rows": checkpoint.rows,
        "window": checkpoint.window,
    }


def _checkpoint(arrays: dict[str, mx.array], content: dict[str, Any]) -> Checkpoint:
    """What `_content` was made of."""
    return Checkpoint(
        Snapshot(arrays, content["numbers"]),
        Progress(**content["progress"]),
        Recipe.from_dict(content["recipe"]),
        content["rows"],
        content["window"],
    )


def _all(folder: Path) -> list[Path]:
    """Those that are whole, in the order of their steps."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _remove_half_done(folder: Path) -> None:
    """What a killed process left; this one alone writes in the run's folder."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
