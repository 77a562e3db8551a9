"""What the benchmarks of whole models share: which proteins a batch has."""

from __future__ import annotations

import numpy as np
import pytest
from harness import sides

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.config import ESM1Config

TINY = ESM1Config(1, 16, 32, 2, max_positions=32)


def some_proteins(count: int = 50) -> Proteins:
    rng = np.random.default_rng(0)
    return Proteins.from_sequences("A" * int(n) for n in rng.integers(1, 45, count))


def test_sorted_batches_hold_whole_proteins_of_like_lengths_within_the_budget() -> None:
    proteins = some_proteins()
    batches = sides.length_sorted_batches(proteins, TINY, 128, 10_000)
    assert all(batch.tokens.size <= 128 for batch in batches)
    lengths = np.concatenate([batch.segment_ids.sum(axis=1) for batch in batches])
    assert lengths.tolist() == sorted(np.minimum(proteins.lengths + 2, 32).tolist())
    for batch in batches:
        assert np.array_equal(batch.segment_ids != 0, batch.tokens != ESM1B.padding_idx)
        assert (batch.tokens[:, 0] == ESM1B.cls_idx).all()
        assert ((batch.tokens == ESM1B.eos_idx).sum(axis=1) == 1).all()


def test_a_choice_of_sorted_batches_is_spread_over_all_lengths() -> None:
    batches = sides.length_sorted_batches(some_proteins(), TINY, 128, 3)
    longest = [batch.tokens.shape[1] for batch in batches]
    assert longest == sorted(longest)
    assert longest[0] < 20
    assert longest[-1] == 32


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [5]), (2, [2, 7]), (10, list(range(10))), (99, list(range(10)))]
)
def test_a_choice_is_spread_evenly(count: int, chosen: list[int]) -> None:
    assert sides.spread(list(range(10)), count) == chosen


def test_the_batches_of_a_side_are_described() -> None:
    batches = [sides.padded([np.arange(4, 9), np.arange(4, 7)]), sides.padded([np.arange(4, 8)])]
    side = sides.side_of_rows([], batches)
    assert [lengths.tolist() for lengths in side.lengths] == [[7, 5], [6]]
    assert side.residues == 5 + 3 + 4
    assert side.fill == pytest.approx((7 + 5 + 6) / (7 + 7 + 6))


def test_useful_work_is_that_of_matrices_and_pairs() -> None:
    side = sides.Side([], [np.array([10, 20]), np.array([30])], 1.0)
    matrices = 2 * (4 * 16 * 16 + 2 * 16 * 32)
    found = side.useful_flops(ESM1Config(2, 16, 32, 2), per_number=2, per_pair=4, head=7)
    assert found == 2 * (matrices + 7) * 60 + 2 * 4 * 16 * (100 + 400 + 900)
