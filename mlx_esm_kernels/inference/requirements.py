"""What a model must have, take and give to be of use: each a check with one sentence."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.proteins import Proteins
from ..models.config import ESM1Config
from ..models.esm1 import ESM1
from ..system.errors import UserError

# What becomes of a protein that is longer than the position table, or than any in training where
# there is no table: "error" refuses the one and takes the other whole.
Long = Literal["error", "window"]
LONGS: tuple[Long, ...] = get_args(Long)
WINDOWS_ADVICE = "ask for windows (long: window)"


class LongProteinWarning(UserWarning):
    """A model takes a protein whole that is longer than any it was trained on."""


def seen_at_once(config: ESM1Config, long: Long) -> int | None:
    """How many residues of a protein the model is to see at once; None: all, however many.

    Args:
        config: of the model.
        long: "window", or "error" for the whole protein.
    """
    return config.trained_residues if long == "window" else config.max_residues


def require_room(model: ESM1, residues: int, label: str | None, advice: str) -> None:
    """Refuse a protein that is longer than the position table. Without one, none is.

    Args:
        model: the model.
        residues: of the protein.
        label: what the message calls the protein; None where the reader knows which is meant.
        advice: what to do, without a full stop; may be "".

    Raises:
        UserError: it has more than `model.config.max_residues`.
    """
    most = model.config.max_residues
    if most is None or residues <= most:
        return
    has = f"{residues:,} residues are too many:"
    if label is not None:
        has = f"{label} has {residues:,} residues;"
    told = f": {advice}" if advice else ""
    raise UserError(f"{has} the position table of this model ends at {most:,}{told}.")


def require_lengths(
    model: ESM1, proteins: Proteins, advice: str, indices: npt.NDArray[np.int64] | None = None
) -> None:
    """`require_room` for all of some proteins before the work, not when the turn of one comes.

    Where there is no table, what `warn_long` says of them is said.

    Args:
        model: the model.
        proteins: some proteins.
        advice: as there.
        indices: (N,) those that the model is to take; None: all.
    """
    chosen = np.arange(len(proteins)) if indices is None else indices
    lengths = proteins.lengths[chosen]
    longest = int(chosen[lengths.argmax()])
    label = f"protein {longest + 1} ({proteins.names[longest]!r})"
    most = model.config.max_residues
    count = 0 if most is None else int((lengths > most).sum())
    if count > 1:
        label = f"{count:,} proteins are too long, the longest of them {label}: it"
    require_room(model, int(lengths.max()), label, advice)
    warn_long(model, lengths, WINDOWS_ADVICE)


def warn_long(model: ESM1, lengths: npt.NDArray[np.integer[Any]], advice: str) -> None:
    """Say in one `LongProteinWarning` that proteins are longer than any the model was trained on.

    Args:
        model: the model.
        lengths: (N,) residues of proteins that it is to take whole; nothing is said where all are
            short enough, or where a position table is what ends them.
        advice: what to do where that is not wanted, without a full stop; may be "".
    """
    trained = model.config.trained_residues
    long = lengths[lengths > trained]
    if model.config.has_position_table or not len(long):
        return
    what = f"a protein of {int(long.max()):,} residues is"
    if len(long) > 1:
        what = f"{len(long):,} proteins of up to {int(long.max()):,} residues are"
    told = f"; where that is not wanted, {advice}" if advice else ""
    warnings.warn(
        f"{what} taken whole, and this model was trained on at most {trained:,}{told}.",
        LongProteinWarning,
        stacklevel=2,
    )


def require_finite(finite: mx.array | bool, dtype: mx.Dtype) -> None:
    """Refuse what a model gave where it is NaN or infinite.

    Args:
        finite: one boolean.
        dtype: of the model's parameters.

    Raises:
        UserError: `finite` is false.
    """
    if finite:
        return
    overflow = ", or too large for float16: try float32 or bfloat16" if dtype == mx.float16 else ""
    raise UserError(f"the model gives NaN or infinity: its weights are damaged{overflow}.")
