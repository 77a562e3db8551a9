"""What a run was begun with, so that it can be gone on with as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.alphabet import Alphabet
from ..data.proteins import Proteins
from ..models.config import ESM1Config
from ..models.low_rank import LowRank
from ..system.errors import DataError
from ..weights.adapter import BaseWeights
from .settings import Settings

_BLOCK = 1 << 20  # proteins that are gone through at a time


@dataclass(frozen=True)
class DataSource:
    """Where the proteins of a run come from, and what they were when it was begun.

    Attributes:
        names: paths, absolute, or the names of what is made or downloaded.
        partitions: of UniParc.
        as_protein: read what looks like something else all the same.
        proteins, residues, fingerprint: how many there were, and a hash of all of them.
    """

    names: tuple[str, ...]
    partitions: tuple[int, ...]
    as_protein: bool
    proteins: int
    residues: int
    fingerprint: str

    def require_same(self, proteins: Proteins) -> None:
        """Refuse other proteins.

        Raises:
            DataError: they are not those that the run was begun with.
        """
        if fingerprint(proteins) == self.fingerprint:
            return
        where = ", ".join(self.names) or "UniParc"
        raise DataError(
            f"{where}: these are {len(proteins):,} proteins with {int(proteins.lengths.sum()):,} "
            f"residues, and not the {self.proteins:,} with {self.residues:,} that the run was "
            "begun with, so it cannot be gone on with. Put those back, or train on from its "
            "weights with --weights-file."
        )


@dataclass(frozen=True)
class Adapter:
    """What is trained beside frozen weights.

    Attributes:
        low_rank: which layers have a low-rank product, and of what kind.
        base: the frozen weights.
    """

    low_rank: LowRank
    base: BaseWeights

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Adapter:
        """What `asdict` gave."""
        return cls(LowRank(**values["low_rank"]), BaseWeights(**values["base"]))


@dataclass(frozen=True)
class Recipe:
    """A run's model, data, batches and settings.

    Attributes:
        config, alphabet: of the model.
        data: where the proteins come from.
        rows, row_length, seed: of the batches.
        settings: how to train.
        adapter: what is trained, where that is not the whole model.
    """

    config: ESM1Config
    alphabet: Alphabet
    data: DataSource
    rows: int
    row_length: int
    seed: int
    settings: Settings
    adapter: Adapter | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for json."""
        return {
            "config": self.config.to_dict(),
            "alphabet": self.alphabet.to_dict(),
            "data": asdict(self.data),
            "batches": {"rows": self.rows, "row_length": self.row_length, "seed": self.seed},
            "settings": asdict(self.settings),
            "adapter": None if self.adapter is None else asdict(self.adapter),
        }

    def but_for_places(self) -> dict[str, Any]:
        """What must be the same on every machine: all but the paths of the data."""
        adapter = None if self.adapter is None else asdict(self.adapter.low_rank)
        return {**self.to_dict(), "data": None, "adapter": adapter}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """What `to_dict` gave; ValueError, KeyError or TypeError for anything else."""
        data = dict(values["data"])
        for name in ("names", "partitions"):
            data[name] = tuple(data[name])
        return cls(
            ESM1Config.from_dict(values["config"]),
            Alphabet.from_dict(values["alphabet"]),
            DataSource(**data),
            **values["batches"],
            settings=Settings(**values["settings"]),
            adapter=Adapter.from_dict(values["adapter"]) if values.get("adapter") else None,
        )


def fingerprint(proteins: Proteins) -> str:
    """The same for the same proteins in the same order."""
    digest = hashlib.blake2b(digest_size=16)
    for first in range(0, len(proteins), _BLOCK):
        digest.update(proteins.lengths[first : first + _BLOCK].astype(np.int64).tobytes())
    for hashes in proteins.hash_blocks():
        digest.update(hashes.tobytes())
    return digest.hexdigest()
