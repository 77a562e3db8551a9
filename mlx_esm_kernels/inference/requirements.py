"""What a model must have, take and give to be of use: each a check with one sentence."""

from __future__ import annotations

from typing import Literal, get_args

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..data.proteins import Proteins
from ..models.esm1 import ESM1
from ..system.errors import UserError

Long = Literal["error", "window"]
LONGS: tuple[Long, ...] = get_args(Long)


def require_room(model: ESM1, residues: int, label: str | None, advice: str) -> None:
    """Refuse a protein that is longer than the position table.

    Args:
        model: the model.
        residues: of the protein.
        label: what the message calls the protein; None where the reader knows which is meant.
        advice: what to do, without a full stop; may be "".

    Raises:
        UserError: it has more than `model.config.max_residues`.
    """
    most = model.config.max_residues
    if residues <= most:
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
    count = int((lengths > model.config.max_residues).sum())
    if count > 1:
        label = f"{count:,} proteins are too long, the longest of them {label}: it"
    require_room(model, int(lengths.max()), label, advice)


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
