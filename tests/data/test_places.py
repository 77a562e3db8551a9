"""Places in the masked batches: kept as json at any moment, and gone back to by other objects."""

import json

import numpy as np
import pytest

from mlx_esm_kernels.data import packing
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.masked_batches import MaskedBatches
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins


@pytest.fixture
def fresh(monkeypatch):
    """Makes masked batches of several windows and six batches an epoch."""
    monkeypatch.setattr(packing, "WINDOW", 4)
    rng = np.random.default_rng(5)
    proteins = Proteins.from_sequences(
        "".join(rng.choice(list(STANDARD_RESIDUES), length)) for length in rng.integers(5, 40, 14)
    )

    def make():
        packed = PackedBatches(proteins, range(14), ESM1B, rows=2, row_length=32, seed=3)
        return MaskedBatches(packed, ESM1B, 7)

    return make


def bits(batch):
    masked = batch.masked
    return [a.tobytes() for a in (masked.inputs, masked.positions, masked.targets)]


@pytest.mark.parametrize("near", [True, False])
def test_a_place_is_gone_back_to_from_anywhere_also_as_earlier_versions_kept_it(fresh, near):
    batches = fresh()
    for _ in range(30):
        place = json.loads(json.dumps(batches.place()))
        expected = bits(next(batches))
        other = fresh()
        next(other)
        other.go_to(place if near else {k: v for k, v in place.items() if k != "near"})
        assert bits(next(other)) == expected
        assert other.place() == batches.place()
