"""Masks at a rate of each protein's own: laws for any batch, and how the rates are distributed."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masked_batches import MaskedBatches
from mlx_esm_kernels.data.masking import eighths, mask_tokens
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.protein_masking import draw_rates, mask_for, mixed_cdf
from mlx_esm_kernels.data.proteins import Proteins

OBJECTIVES = ("diffusion", "mixed")
LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWYX"))


def packed(seed, rows=4, count=60, row_length=48, longest=70):
    rng = np.random.default_rng(seed)
    proteins = Proteins.from_sequences(
        ["".join(rng.choice(LETTERS, rng.integers(1, longest))) for _ in range(count)]
    )
    indices = np.arange(count)
    return PackedBatches(proteins, indices, ESM1B, rows=rows, row_length=row_length, seed=3)


def digest(batches, count):
    found = hashlib.blake2b(digest_size=16)
    for _ in range(count):
        batch = next(batches)
        masked = batch.masked
        parts = (masked.inputs, masked.positions, masked.targets, masked.weights)
        for array in (*parts, batch.segment_ids):
            found.update(np.ascontiguousarray(array).tobytes())
            found.update(str((array.dtype, array.shape)).encode())
    return found.hexdigest()


@pytest.mark.parametrize(
    ("part", "golden"),
    [
        ((0, 1), "1cd592600975e66c2c97f2c22bdc577b"),
        ((1, 3), "4ddfa9807613d78806ad07001461efb7"),
    ],
)
def test_mlm_masks_as_it_did_before_there_were_other_objectives(part, golden):
    """Hashes of the version before them."""
    assert digest(MaskedBatches(packed(5), ESM1B, (42, 7), part), 25) == golden


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 6), objective=st.sampled_from(OBJECTIVES)
)
def test_every_protein_has_targets_all_shown_as_masks(seed, rows, objective):
    batch = next(iter(packed(seed, rows=rows)))
    tokens, segment_ids = batch.tokens, batch.segment_ids
    masked = mask_for(objective, tokens, segment_ids, ESM1B, np.random.default_rng(seed))
    is_target, weights = masked.is_target, np.zeros(tokens.size)
    used = masked.weights > 0
    weights[masked.positions[used]] = masked.weights[used]
    weights = weights.reshape(tokens.shape)

    assert is_target.sum() == used.sum()
    assert np.array_equal(masked.targets[used], tokens[is_target])
    assert np.isin(tokens[is_target], ESM1B.amino_acid_ids).all()
    assert (masked.inputs[is_target] == ESM1B.mask_idx).all()
    assert np.array_equal(masked.inputs[~is_target], tokens[~is_target])
    assert not masked.positions[~used].any()
    is_candidate = np.isin(tokens, ESM1B.amino_acid_ids) & (segment_ids != 0)
    for row in range(rows):
        for segment in range(1, segment_ids[row].max() + 1):
            of_protein = segment_ids[row] == segment
            size = int(is_candidate[row][of_protein].sum())
            count = int(is_target[row][of_protein].sum())
            assert bool(count) == bool(size)
            total = size if objective == "diffusion" else count
            assert weights[row][of_protein].sum() == pytest.approx(total, rel=1e-5)
            assert len(set(weights[row][of_protein & is_target[row]])) <= 1
    assert masked.weight == pytest.approx(weights.sum())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_seed_gives_the_same_masks_and_another_others(objective):
    batches = [MaskedBatches(packed(1), ESM1B, seed, objective=objective) for seed in (7, 7, 8)]
    first, again, other = (digest(some, 2) for some in batches)
    assert first == again != other


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_shape_has_eight_numbers_of_places_at_most(objective):
    for part in ((0, 1), (1, 3)):
        batches = MaskedBatches(packed(2, rows=6), ESM1B, 0, part, objective)
        sizes = {len(next(batches).masked.positions) for _ in range(100)}
        rows = 6 // part[1]
        assert sizes <= {rows * 48 * eighth // 8 for eighth in range(1, 9)}


def test_places_are_the_next_eighth():
    assert [eighths(count, 64) for count in (0, 1, 8, 9, 56, 57, 64)] == [8, 8, 8, 16, 56, 64, 64]
    assert [eighths(count, 3) for count in range(4)] == [1, 2, 3, 3]
    for size in range(1, 40):
        assert all(count <= eighths(count, size) <= size for count in range(size + 1))


def test_a_batch_without_amino_acids_has_no_target():
    tokens = np.array([[ESM1B.cls_idx, ESM1B.unk_idx, ESM1B.eos_idx, ESM1B.padding_idx]])
    segment_ids = np.array([[1, 1, 1, 0]])
    masked = mask_for("diffusion", tokens, segment_ids, ESM1B, np.random.default_rng(0))
    assert masked.weight == 0
    assert np.array_equal(masked.inputs, tokens)


def row_of(*lengths):
    """One row of whole proteins of alanine."""
    residue = ESM1B.amino_acid_ids[0]
    proteins = [[ESM1B.cls_idx, *[residue] * length, ESM1B.eos_idx] for length in lengths]
    ids = np.repeat(np.arange(len(lengths)) + 1, np.array(lengths) + 2)
    return np.concatenate(proteins)[None].astype(np.int32), ids[None]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_packed_protein_is_masked_as_one_alone(objective):
    """The number of its targets, and where they are: the shares of 1,000 draws each."""
    shares = []
    for lengths, first in (((6,), 1), ((9, 6, 3), 12)):
        tokens, ids = row_of(*lengths)
        rng = np.random.default_rng(1)
        drawn = [
            mask_for(objective, tokens, ids, ESM1B, rng).is_target[0, first : first + 6]
            for _ in range(1000)
        ]
        counts = np.bincount(np.sum(drawn, axis=1), minlength=7) / 1000
        shares.append(counts)
        assert np.ptp(np.mean(drawn, axis=0)) < 5 * np.sqrt(2) * 0.5 / np.sqrt(1000)
    # A share of p is known to sqrt(p (1 - p) / 1000) < 0.016, and of a sixth to 0.012.
    assert np.abs(shares[0] - shares[1]).max() < 5 * 0.016
    if objective == "diffusion":  # exactly uniform in 1..6, as the bound has it
        assert np.abs(shares[0] - np.array([0, *[1 / 6] * 6])).max() < 5 * 0.012


def kolmogorov(values, cdf):
    """The largest difference between the empirical distribution and `cdf`."""
    values = np.sort(values)
    expected, steps = cdf(values), np.arange(len(values) + 1) / len(values)
    return max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())


def test_rates_that_are_drawn_alone_have_the_distribution_of_the_objective():
    """Each of 4,000 from a batch of its own: at 1.63 / sqrt(N) a fair draw fails once in 100."""
    bound = 1.63 / np.sqrt(4000)
    rates = {}
    for objective in OBJECTIVES:
        rng = np.random.default_rng(2)
        rates[objective] = np.concatenate([draw_rates(objective, 1, rng) for _ in range(4000)])
        assert 0 < rates[objective].min() <= rates[objective].max() <= 1
    assert kolmogorov(rates["diffusion"], lambda x: x) < bound
    assert kolmogorov(rates["mixed"], mixed_cdf) < bound
    # ESM3's mixture by numpy's own draws, which know nothing of our distribution function.
    rng = np.random.default_rng(3)
    theirs = np.where(rng.random(4000) < 0.8, rng.beta(3, 9, 4000), rng.random(4000))
    assert kolmogorov(theirs, mixed_cdf) < bound
    assert kolmogorov(rates["diffusion"], mixed_cdf) > 10 * bound
    assert rates["mixed"].mean() == pytest.approx(0.30, abs=0.01)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 200))
def test_the_rates_of_a_batch_are_one_of_each_stratum(seed, count):
    uniform = draw_rates("diffusion", count, np.random.default_rng(seed))
    assert sorted(np.ceil(uniform * count - 1e-9).astype(int)) == list(range(1, count + 1))
    mixed = draw_rates("mixed", count, np.random.default_rng(seed))
    assert np.array_equal(np.argsort(mixed), np.argsort(uniform))
    np.testing.assert_allclose(mixed_cdf(mixed), uniform, atol=1e-6)


def test_mlm_is_that_of_mask_tokens_and_no_other_name_is_an_objective():
    batch = next(iter(packed(0)))
    one, other = (
        mask_tokens(batch.tokens, batch.segment_ids, ESM1B, np.random.default_rng(0)),
        mask_for("mlm", batch.tokens, batch.segment_ids, ESM1B, np.random.default_rng(0)),
    )
    assert np.array_equal(one.inputs, other.inputs)
    with pytest.raises(ValueError, match="must be diffusion or mixed; got 'clm'"):
        mask_for("clm", batch.tokens, batch.segment_ids, ESM1B, np.random.default_rng(0))
