"""What is predicted without any model: a constant, and linear regression on the residues."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.alphabet import Alphabet
from ..data.labelled import Labelled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 5  # residues on either side that a residue's baseline sees
MOST_ROWS = 50_000  # residues that a baseline learns from: more take minutes and change little
# Strengths of regularisation, of which the validation part chooses.
_PENALTIES = tuple(10.0**power for power in range(-2, 5))


@dataclass(frozen=True)
class Baseline:
    """A prediction that needs no model.

    Attributes:
        name: what it is, in words.
        values: (E,) float64, of every target; see `Labelled`.
    """

    name: str
    values: Floats


def baselines(
    labelled: Labelled, alphabet: Alphabet, train: Ints, valid: Ints, *, seed: int
) -> list[Baseline]:
    """A constant, and the linear model; both learn from the same targets as the head does.

    Args:
        labelled: the proteins and their targets.
        alphabet: of their ids.
        train, valid: (rows,) places of known targets in (E,), to learn from and to choose by.
        seed: of the choice of rows where there are more than MOST_ROWS.
    """
    targets = labelled.targets
    if labelled.classes:
        counts = np.bincount(targets[train].astype(np.int64), minlength=len(labelled.classes))
        constant = Baseline("majority class", np.full(len(targets), float(counts.argmax())))
    else:
        constant = Baseline("mean", np.full(len(targets), targets[train].mean()))
    rows, what = _features(labelled, alphabet)
    if len(train) > MOST_ROWS:
        train = np.random.default_rng(seed).choice(train, MOST_ROWS, replace=False)
        train.sort()
    kind = "logistic regression" if labelled.classes else "ridge regression"
    values = _chosen(rows, targets, train, valid, is_classes=bool(labelled.classes))
    return [constant, Baseline(f"{kind} on {what}", values)]


def _features(labelled: Labelled, alphabet: Alphabet) -> tuple[Any, str]:
    """(E, features), sparse where it is mostly zeros, and what they are."""
    if labelled.level == "residue":
        return _windows(labelled, len(alphabet)), f"one-hot residues, {NEIGHBOURS} on either side"
    lengths = labelled.proteins.lengths
    if (lengths == lengths[0]).all():
        ids = np.stack(list(labelled.proteins)).astype(np.int64)
        return _one_hot(ids), "one-hot residues"
    counts = np.stack([np.bincount(ids, minlength=len(alphabet)) for ids in labelled.proteins])
    shares = counts[:, alphabet.amino_acid_ids] / lengths[:, None]
    deviation = shares.std(axis=0)
    return shares / np.where(deviation > 0, deviation, 1), "amino-acid composition"


def _windows(labelled: Labelled, num_tokens: int) -> Any:
    """Each residue and its neighbours, one-hot; beyond an end there is a token more."""
    beyond = np.full(NEIGHBOURS, num_tokens, np.int64)
    around = [
        np.lib.stride_tricks.sliding_window_view(
            np.concatenate([beyond, ids, beyond]), 2 * NEIGHBOURS + 1
        )
        for ids in labelled.proteins
    ]
    return _one_hot(np.concatenate(around))


def _one_hot(ids: Ints) -> Any:
    """(rows, places) -> sparse (rows, kinds of token at each place)."""
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder().fit_transform(ids)


def _chosen(rows: Any, targets: Floats, train: Ints, valid: Ints, *, is_classes: bool) -> Floats:
    """The predictions (E,) of the strength of regularisation that is best on the valid part."""
    best, lowest = np.full(len(targets), targets[train].mean()), np.inf
    for model in _models(is_classes):
        with warnings.catch_warnings():
            # A baseline that stops early is compared as it is.
            warnings.simplefilter("ignore")
            model.fit(rows[train], targets[train])
        if is_classes:
            known = {name: column for column, name in enumerate(model.classes_)}
            found = model.predict_proba(rows[valid])
            columns = [known.get(target) for target in targets[valid]]
            at_target = [0 if c is None else row[c] for row, c in zip(found, columns, strict=True)]
            error = -float(np.log(np.maximum(at_target, 1e-9)).mean())
        else:
            error = float(np.square(model.predict(rows[valid]) - targets[valid]).mean())
        if error < lowest:
            best, lowest = np.asarray(model.predict(rows), np.float64), error
    return best


def _models(is_classes: bool) -> Iterator[Any]:
    from sklearn.linear_model import LogisticRegression, Ridge

    for penalty in _PENALTIES:
        if is_classes:
            yield LogisticRegression(C=1 / penalty, max_iter=200)
        else:
            yield Ridge(alpha=penalty)
