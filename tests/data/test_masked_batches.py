"""Parts of masked batches, as several processes take them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masked_batches import MaskedBatch, MaskedBatches, part_of
from mlx_esm_kernels.data.masking import mask_tokens
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins


def random_proteins(rng, count):
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWYX"))
    return Proteins.from_sequences(
        ["".join(rng.choice(letters, rng.integers(1, 40))) for _ in range(count)]
    )


def whole_batches(seed, rows, part=(0, 1), objective="mlm"):
    proteins = random_proteins(np.random.default_rng(seed), 30)
    packed = PackedBatches(proteins, np.arange(30), ESM1B, rows=rows, row_length=48, seed=seed)
    return MaskedBatches(packed, ESM1B, seed, part, objective)


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 9),
    objective=st.sampled_from(["mlm", "diffusion", "mixed"]),
    data=st.data(),
)
def test_the_parts_of_a_batch_have_each_row_and_each_target_once(seed, rows, objective, data):
    count = data.draw(st.integers(1, rows))
    whole = next(whole_batches(seed, rows, objective=objective))
    parts = [next(whole_batches(seed, rows, (number, count), objective)) for number in range(count)]
    assert {part.segment_ids.shape for part in parts} == {(math.ceil(rows / count), 48)}
    filled = [part.segment_ids.any(axis=1) for part in parts]
    for name in ("inputs", "segment_ids"):

        def of(batch, name=name):
            return batch.segment_ids if name == "segment_ids" else batch.masked.inputs

        got = np.concatenate([of(part)[some] for part, some in zip(parts, filled, strict=True)])
        np.testing.assert_array_equal(got, of(whole)[whole.segment_ids.any(axis=1)])
    seen = [
        (part.masked.inputs.reshape(-1)[part.masked.positions], part.masked.targets)
        for part in parts
    ]
    used = [part.masked.weights > 0 for part in parts]
    found = [np.concatenate([pair[i][some] for pair, some in zip(seen, used, strict=True)])
             for i in (0, 1)]  # fmt: skip
    some = whole.masked.weights > 0
    np.testing.assert_array_equal(
        found[0], whole.masked.inputs.reshape(-1)[whole.masked.positions[some]]
    )
    np.testing.assert_array_equal(found[1], whole.masked.targets[some])
    weights = [part.masked.weights[of_part] for part, of_part in zip(parts, used, strict=True)]
    np.testing.assert_array_equal(np.concatenate(weights), whole.masked.weights[some])
    total = whole.masked.weights.sum(dtype=np.float64)
    assert {(part.residues, part.weight) for part in parts} == {(whole.residues, total)}


def test_a_part_with_most_of_the_targets_has_room_for_them():
    tokens = np.full((4, 100), ESM1B.padding_idx, np.int32)
    segment_ids = np.zeros((4, 100), np.int32)
    tokens[2], segment_ids[2] = ESM1B.amino_acid_ids[0], 1
    masked = mask_tokens(tokens, segment_ids, ESM1B, np.random.default_rng(0), rate=1.0)
    whole = MaskedBatch(masked, segment_ids, 100, 100)
    parts = [part_of(whole, number, 4, ESM1B.padding_idx) for number in range(4)]
    assert [int(part.masked.weights.sum()) for part in parts] == [0, 0, 100, 0]


def test_parts_have_one_shape_over_many_batches():
    """A step is compiled once: the slots for targets are not fewer or more from batch to batch."""
    batches = whole_batches(3, 8, (1, 4))
    assert len({next(batches).masked.positions.shape for _ in range(200)}) == 1


def test_more_parts_than_rows_are_refused():
    whole = next(whole_batches(0, 2))
    with pytest.raises(ValueError, match="2 rows cannot be divided into 3 parts"):
        part_of(whole, 0, 3, ESM1B.padding_idx)
