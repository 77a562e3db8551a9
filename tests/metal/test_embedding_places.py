"""Places within segments and factors of token dropout, as the Metal kernel counts them: exactly."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from metal_emulator import Emulator, emulating
from numpy.typing import NDArray

from mlx_esm_kernels import _ext

PADDING, MASK, VOCABULARY = 1, 4, 6
PLACES = "positional_embedding_places"
# Neighbours, the ends of 64 bits, and ids that share their upper or their lower half.
IDS = (0, 1, 2, 3, -1, 2**32, 2**32 + 1, 2**33, -(2**32), 2**63 - 1, -(2**63))
_KEPT = np.float32(1) - np.float32(0.15) * np.float32(0.8)


def counted(tokens: NDArray[np.int64], ids: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """(B, L, 2): the row of the position table, and the factor times token + 1."""
    if ids is None:
        ids = np.ones_like(tokens)
    ids = np.where(tokens == PADDING, 0, ids)
    same = ids[:, :, None] == ids[:, None, :]
    place = np.tril(same).sum(axis=2)
    share = (same & (tokens == MASK)[:, None, :]).sum(axis=2, dtype=np.float32)
    share /= same.sum(axis=2, dtype=np.float32)
    visible = (tokens != MASK) & (share < 1)
    factor = np.where(visible, _KEPT / np.where(visible, 1 - share, np.float32(1)), 0)
    x = np.stack([PADDING + place, factor.astype(np.float32) * (tokens + 1)], axis=2)
    return np.where(ids[..., None] == 0, 0, x).astype(np.float32)


def found(tokens: NDArray[np.int64], ids: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """The same by the op, from tables that hold their rows' numbers."""
    rows = PADDING + 1 + tokens.shape[1]
    token_table = np.stack([np.zeros(VOCABULARY), 1 + np.arange(VOCABULARY)], axis=1)
    position_table = np.stack([np.arange(rows), np.zeros(rows)], axis=1)
    tables = (mx.array(table.astype(np.float32)) for table in (token_table, position_table))
    x = _ext.positional_embedding(
        mx.array(tokens),
        *tables,
        padding_idx=PADDING,
        mask_idx=MASK,
        segment_ids=None if ids is None else mx.array(ids),
    )
    mx.eval(x)
    return np.array(x)


def run_ids(runs: list[tuple[int, int]], ascending: bool) -> NDArray[np.int64]:
    """(1, L) of (id, length), whose ids may come again."""
    if ascending:
        runs = sorted(runs)
    return np.concatenate([np.full(length, id, np.int64) for id, length in runs])[None]


_runs = st.lists(
    st.tuples(st.sampled_from(IDS), st.sampled_from((1, 2, 31, 32, 33, 64, 150, 256))),
    min_size=1,
    max_size=8,
)
_rates = st.sampled_from((0.0, 0.1, 0.9, 1.0))


@given(
    runs=_runs,
    ascending=st.booleans(),
    padding_rate=_rates,
    mask_rate=_rates,
    seed=st.integers(0, 2**32 - 1),
)
@example([(3, 256), (1, 256), (3, 33)], False, 0.0, 0.1, 0)
@example([(-(2**63), 40), (2**63 - 1, 40), (0, 64), (-(2**63), 40)], False, 0.1, 0.1, 0)
@example([(2**32, 64), (2**32 + 1, 64), (2**33, 64)], True, 0.1, 0.1, 0)
def test_counts_are_exact_whatever_the_runs(
    runs: list[tuple[int, int]], ascending: bool, padding_rate: float, mask_rate: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = run_ids(runs, ascending)
    tokens = rng.integers(PADDING + 1, VOCABULARY, ids.shape)
    tokens[rng.random(ids.shape) < mask_rate] = MASK
    tokens[rng.random(ids.shape) < padding_rate] = PADDING
    with emulating(Emulator(orders=(0, 1)).execute):
        np.testing.assert_array_equal(found(tokens, ids), counted(tokens, ids))
        np.testing.assert_array_equal(found(tokens, None), counted(tokens, None))


STORIES = {
    "a protein of three tiles": [(1, 700)],
    "packed proteins with padding between": [(1, 100), (0, 40), (2, 290), (0, 3), (3, 150)],
    "proteins shorter than a block": [(i, 9) for i in range(1, 40)],
    "in falling order": [(3, 100), (2, 100), (1, 100)],
    "one that comes again": [(1, 130), (2, 200), (1, 130)],
}


@pytest.mark.parametrize("story", STORIES)
def test_padding_within_a_run_does_not_split_its_count(story: str, emulator: Emulator) -> None:
    rng = np.random.default_rng(0)
    ids = run_ids(STORIES[story], ascending=False)
    tokens = rng.integers(0, VOCABULARY, ids.shape)  # a sixth of them padding, a sixth masks
    np.testing.assert_array_equal(found(tokens, ids), counted(tokens, ids))
    assert PLACES in emulator.counts


def test_packed_proteins_cost_a_fraction_of_interleaved_ones(emulator: Emulator) -> None:
    """Threadgroup memory is read by the token in blocks that may hold another segment alone."""
    read = {}
    packed = np.repeat(np.arange(1, 5), 256)[None]
    for name, ids in {
        "packed": packed,
        "interleaved": packed.reshape(4, 256).T.reshape(1, -1),
    }.items():
        emulator.counts.clear()
        found(np.full(ids.shape, 2), ids)
        read[name] = emulator.counts[PLACES].threadgroup_read
    assert read["packed"] * 8 < read["interleaved"]
