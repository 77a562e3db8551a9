"""How many of the contacts that a model is surest of are contacts in a structure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOUCHING = 8.0  # angstrom between C-betas
LONG_RANGE = 24  # residues apart, in the sequence

_Floats = npt.NDArray[np.floating]


def contacts_of(cb: _Floats) -> npt.NDArray[np.float64]:
    """The contacts of a structure.

    Args:
        cb: (L, 3), positions of the C-betas in angstrom, NaN where there is none.

    Returns:
        (L, L) float64, symmetric: 1 where two residues are nearer than 8 angstrom, 0 where they
        are not, NaN where one of them has no position.
    """
    positions = np.asarray(cb, np.float64)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    contacts: npt.NDArray[np.float64] = np.where(
        np.isnan(distances), np.nan, (distances < TOUCHING).astype(np.float64)
    )
    return contacts


def long_range_precision(
    predicted: _Floats, contacts: _Floats, places: npt.ArrayLike | None = None, *, share: int = 1
) -> float | None:
    """The share of contacts among the L / share surest pairs, 24 residues apart or more.

    As CASP and Rao et al. 2021 (Transformer protein language models are unsupervised structure
    learners) count: pairs of which nothing is known do not take part, and where there are fewer
    than L / share pairs all are taken. A structure with fewer contacts than that cannot reach 1.

    Args:
        predicted: (L, L) probabilities; the upper triangle is read.
        contacts: (L, L), of `contacts_of`.
        places: (L,) where the residues are in the sequence; None: 0, 1, ...
        share: 1 for precision at L, 5 for precision at L / 5.

    Returns:
        From 0 to 1; None where there is no such pair.

    Raises:
        ValueError: the shapes are not those, `share` is below 1, or a prediction is NaN.
    """
    length = len(contacts)
    if predicted.shape != (length, length) or contacts.shape != (length, length) or share < 1:
        raise ValueError(
            "[long_range_precision] expected predicted and contacts of one shape (L, L) and share "
            f">= 1; got {predicted.shape}, {contacts.shape} and {share}."
        )
    where = np.arange(length) if places is None else np.asarray(places)
    if where.shape != (length,):
        raise ValueError(
            f"[long_range_precision] expected {length} places; got an array of {where.shape}."
        )
    first, second = surest_pairs(predicted, contacts, where)
    if not len(first):
        return None
    if np.isnan(predicted[first, second]).any():
        raise ValueError("[long_range_precision] predicted has NaN in it.")
    most = max(1, length // share)
    return float(contacts[first[:most], second[:most]].mean())


def surest_pairs(
    predicted: _Floats, contacts: _Floats, places: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(i, j) of all long-range pairs of which `contacts` is known, the surest first.

    Of pairs that are equally sure the first in the sequence comes first.
    """
    first, second = np.triu_indices(len(contacts), 1)
    takes_part = (np.abs(places[second] - places[first]) >= LONG_RANGE) & ~np.isnan(
        contacts[first, second]
    )
    first, second = first[takes_part], second[takes_part]
    order = np.argsort(-predicted[first, second], kind="stable")
    return first[order], second[order]
