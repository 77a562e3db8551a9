"""Packing: every protein once an epoch, in full rows, the same for the same seed."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data import packing
from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.packing import PackedBatches, best_fit
from mlx_esm_kernels.data.proteins import Proteins

CLS, PAD, EOS = ESM1B.cls_idx, ESM1B.padding_idx, ESM1B.eos_idx


def random_proteins(lengths, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.array(list(STANDARD_RESIDUES))
    return Proteins.from_sequences(["".join(rng.choice(letters, n)) for n in lengths])


def segments(batch):
    """The tokens of each protein of a batch, after a check that the batch is well made."""
    assert batch.tokens.shape == batch.segment_ids.shape
    assert batch.tokens.dtype == batch.segment_ids.dtype == np.int32
    found = []
    for tokens, ids in zip(batch.tokens, batch.segment_ids, strict=True):
        used = int((ids != 0).sum())
        # Runs 1, 2, ..., n, then padding.
        assert (np.diff(ids[:used]) >= 0).all()
        assert set(ids[:used].tolist()) == set(range(1, ids.max() + 1))
        assert (ids[used:] == 0).all()
        assert (tokens[used:] == PAD).all()
        for segment in range(1, ids.max() + 1):
            protein = tokens[ids == segment]
            assert (protein[0], protein[-1]) == (CLS, EOS)
            found.append(protein[1:-1].tolist())
    return found


def epoch(batches):
    return [protein for batch in batches for protein in segments(batch)]


def fingerprint(batches):
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.tokens.tobytes() + batch.segment_ids.tobytes())
    return digest.hexdigest()


# best_fit


def naive_best_fit(lengths, capacity):
    """The definition, in quadratic time: the free spaces that remain."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        if fitting:
            spaces[spaces.index(min(fitting))] -= length
        else:
            spaces.append(capacity - length)
    return sorted(spaces)


@given(st.integers(1, 80), st.data())
def test_best_fit_places_every_item_once_and_as_defined(capacity, data):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    rows = best_fit(lengths, capacity)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    used = [sum(lengths[item] for item in row) for row in rows]
    assert all(0 < u <= capacity for u in used)
    assert sorted(capacity - u for u in used) == naive_best_fit(lengths, capacity)


def test_best_fit_finds_the_perfect_packing_of_a_story():
    assert best_fit([3, 7, 5, 5, 4, 6], 10) == [[1, 0], [5, 4], [2, 3]]


@pytest.mark.parametrize("lengths", [[0], [11], [3, -1]])
def test_best_fit_refuses_what_no_row_can_hold(lengths):
    with pytest.raises(ValueError, match=r"lengths must be in \[1, capacity\] = \[1, 10\]"):
        best_fit(lengths, 10)


def test_proteins_fill_batches_to_99_percent():
    # Swiss-Prot's lengths are close to log-normal, with a median of about 290.
    lengths = np.random.default_rng(0).lognormal(np.log(290), 0.75, 3000).astype(int) + 1
    batches = PackedBatches(
        random_proteins(lengths), range(3000), ESM1B, rows=4, row_length=1024, seed=0
    )
    for _ in batches:
        pass
    assert batches.fill > 0.99


# PackedBatches


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    rows=st.integers(1, 4),
    row_length=st.integers(3, 40),
    seed=st.integers(0, 2**32),
    window=st.integers(1, 50),
)
def test_every_protein_is_in_every_epoch_once(lengths, rows, row_length, seed, window):
    proteins = random_proteins(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW", window)
        batches = PackedBatches(
            proteins, range(len(lengths)), ESM1B, rows=rows, row_length=row_length, seed=seed
        )
        made = list(batches)
    assert all(batch.tokens.shape == (rows, row_length) for batch in made)
    # Nothing but the last batch has an empty row.
    assert all((batch.segment_ids[:, 0] == 1).all() for batch in made[:-1])
    seen = Counter(map(bytes, epoch(made)))
    texts = [p.tobytes() for p in proteins]
    long = [text for text in texts if len(text) > row_length - 2]
    whole = Counter(text for text in texts if len(text) <= row_length - 2)
    assert not whole - seen
    crops = seen - whole
    assert crops.total() == len(long)
    assert all(len(c) == row_length - 2 and any(c in text for text in long) for c in crops)
    used = sum(int((batch.segment_ids != 0).sum()) for batch in made)
    assert batches.fill == used / (len(made) * rows * row_length)


def test_only_the_chosen_proteins_are_used():
    proteins = random_proteins([5, 6, 7, 8])
    batches = PackedBatches(proteins, [3, 1], ESM1B, rows=1, row_length=32, seed=0)
    assert sorted(map(len, epoch(batches))) == [6, 8]


def test_a_giant_is_cropped_anew_each_epoch_and_never_dropped():
    proteins = random_proteins([35_000, 10])
    giant = bytes(proteins[0].tolist())
    batches = PackedBatches(proteins, [0, 1], ESM1B, rows=2, row_length=64, seed=0)
    starts = set()
    for _ in range(20):
        short, long = sorted(epoch(batches), key=len)
        assert (len(short), len(long)) == (10, 62)
        starts.add(giant.index(bytes(long)))
    assert len(starts) == 20
    assert min(starts) < 10_000
    assert max(starts) > 25_000


def test_crops_reach_both_ends():
    proteins = random_proteins([12])
    text = bytes(proteins[0].tolist())
    batches = PackedBatches(proteins, [0], ESM1B, rows=1, row_length=12, seed=0)
    starts = {text.index(bytes(epoch(batches)[0])) for _ in range(40)}
    assert starts == {0, 1, 2}


def test_the_seed_determines_order_and_crops():
    proteins = random_proteins([50, 8, 9, 20, 31] * 6)

    def epochs(seed):
        batches = PackedBatches(proteins, range(30), ESM1B, rows=2, row_length=24, seed=seed)
        return [fingerprint(batches) for _ in range(3)]

    assert epochs(1) == epochs(1)
    assert len({*epochs(1), *epochs(2)}) == 6


def test_an_epoch_can_be_gone_to_directly():
    proteins = random_proteins([50, 8, 9, 20, 31] * 6)
    options = {"rows": 2, "row_length": 24, "seed": 7}
    batches = PackedBatches(proteins, range(30), ESM1B, **options)
    third = [fingerprint(batches) for _ in range(3)][2]
    resumed = PackedBatches(proteins, range(30), ESM1B, **options)
    resumed.epoch = 2
    assert fingerprint(resumed) == third


def test_a_half_read_epoch_is_followed_by_the_next_one():
    proteins = random_proteins([20] * 12)
    batches = PackedBatches(proteins, range(12), ESM1B, rows=1, row_length=24, seed=0)
    next(iter(batches))
    assert batches.epoch == 1
    assert len(epoch(batches)) == 12


def test_without_shuffle_and_crop_every_epoch_is_the_same():
    proteins = random_proteins([50, 8, 9, 20, 31])
    batches = PackedBatches(
        proteins, range(5), ESM1B, rows=2, row_length=24, seed=3, crop=False, shuffle=False
    )
    assert fingerprint(batches) == fingerprint(batches)


def test_without_crop_only_the_order_changes():
    proteins = random_proteins([50, 60, 70, 80])
    batches = PackedBatches(proteins, range(4), ESM1B, rows=1, row_length=24, seed=3, crop=False)
    first, second = epoch(batches), epoch(batches)
    assert sorted(first) == sorted(second)
    assert first != second


def test_max_length_crops_below_the_row_length():
    proteins = random_proteins([100, 100])
    batches = PackedBatches(proteins, [0, 1], ESM1B, rows=1, row_length=64, seed=0, max_length=32)
    (batch,) = batches
    assert [len(s) for s in segments(batch)] == [30, 30]
    assert batches.fill == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": 0}, "rows must be at least 1; got 0"),
        ({"row_length": 2}, "must be at least 3 .a residue, and 2 of cls and eos."),
        ({"max_length": 2}, "must be at least 3 .a residue, and 2 of cls and eos."),
        ({"seed": -1}, "seed must not be negative; got -1"),
        ({"indices": []}, r"indices must be \(N,\) with N at least 1; got shape \(0,\)"),
        ({"indices": [[0]]}, r"got shape \(1, 1\)"),
        ({"indices": [0, 3]}, r"indices must be in \[0, 3\)"),
        ({"indices": [-1]}, r"indices must be in \[0, 3\)"),
    ],
)
def test_what_cannot_be_packed_is_said_in_a_sentence(change, sentence):
    options = {"indices": [0, 1], "rows": 2, "row_length": 16, "seed": 0} | change
    with pytest.raises(ValueError, match=sentence):
        PackedBatches(random_proteins([4, 5, 6]), alphabet=ESM1B, **options)


def test_an_alphabet_without_eos_gets_none_and_its_rows_hold_more():
    proteins = random_proteins([9, 9, 9])
    (batch,) = PackedBatches(proteins, range(3), ESM1_ALPHABET, rows=1, row_length=30, seed=0)
    assert (batch.segment_ids != 0).all()
    for segment in (1, 2, 3):
        tokens = batch.tokens[batch.segment_ids == segment]
        assert tokens[0] == ESM1_ALPHABET.cls_idx
        assert any((tokens[1:] == protein).all() for protein in proteins)
    batches = PackedBatches(proteins, range(3), ESM1_ALPHABET, rows=3, row_length=8, seed=0)
    (batch,) = batches
    assert (batch.tokens[:, 0] == ESM1_ALPHABET.cls_idx).all()
    assert not (batch.tokens == ESM1_ALPHABET.eos_idx).any()
    with pytest.raises(ValueError, match=r"at least 2 \(a residue, and 1 of cls and eos\); got 1"):
        PackedBatches(proteins, range(3), ESM1_ALPHABET, rows=1, row_length=1, seed=0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(0, 12), st.booleans())
def test_batches_that_are_skipped_leave_the_others_as_they_are(lengths, count, shuffle):
    proteins = random_proteins(lengths)
    packed = [
        PackedBatches(
            proteins, range(len(lengths)), ESM1B, rows=2, row_length=32, seed=1, shuffle=shuffle
        )
        for _ in range(2)
    ]
    for _ in range(2):
        whole, rest = list(packed[0]), list(packed[1].skipping(count))
        assert fingerprint(whole[count:]) == fingerprint(rest)
        assert packed[0].epoch == packed[1].epoch


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_orders_and_crops_depend_neither_on_blocks_nor_on_the_type_of_the_indices(
    monkeypatch, dtype
):
    proteins = random_proteins(np.random.default_rng(2).integers(1, 60, 300))

    def epochs(indices):
        batches = PackedBatches(proteins, indices, ESM1B, rows=2, row_length=32, seed=1)
        return [fingerprint(batches) for _ in range(2)]

    indices = np.tile(np.arange(300), 2)  # each twice, with a crop for each
    expected = epochs(indices)
    monkeypatch.setattr(packing, "_BLOCK", 7)
    assert epochs(indices.astype(dtype)) == expected


def test_crops_are_those_that_numpy_draws_for_all_proteins_at_once():
    lengths = np.random.default_rng(3).integers(1, 90, 500)
    proteins = random_proteins(lengths)
    batches = PackedBatches(proteins, range(500), ESM1B, rows=2, row_length=32, seed=9)
    starts = np.random.default_rng([9, 0, 1]).integers(0, np.maximum(lengths - 30, 0) + 1)
    expected = Counter(
        tuple(protein[start : start + 30].tolist())
        for protein, start in zip(proteins, starts, strict=True)
    )
    assert Counter(tuple(protein) for protein in epoch(batches)) == expected


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(0, 12),
    st.booleans(),
)
def test_an_epoch_is_gone_on_with_from_a_mark(lengths, rows, more, shuffle):
    proteins = random_proteins(lengths)

    def packed():
        return PackedBatches(
            proteins, range(len(lengths)), ESM1B, rows=rows, row_length=32, seed=1, shuffle=shuffle
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW", 5)
        whole = list(packed())
        first = packed()
        for taken, _ in enumerate(first, start=1):
            mark = json.loads(json.dumps(first.mark))
            rest = packed().skipping(taken + more, mark)
            assert fingerprint(rest) == fingerprint(whole[taken + more :])


def test_what_lies_before_a_mark_is_not_packed_again(monkeypatch):
    monkeypatch.setattr(packing, "WINDOW", 10)
    proteins, calls = random_proteins([20] * 100), []
    original = packing.best_fit

    def counting(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(packing, "best_fit", counting)
    batches = PackedBatches(proteins, range(100), ESM1B, rows=1, row_length=32, seed=1)
    taken = list(zip(range(85), batches, strict=False))
    assert len(calls) == 9
    calls.clear()
    next(batches.skipping(len(taken), batches.mark))
    assert len(calls) == 1
