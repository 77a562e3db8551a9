"""Validation: the same masks every time, and yardsticks that are what they say."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.frequencies import residue_frequencies
from mlx_esm_kernels.data.masking import TO_MEASURE
from mlx_esm_kernels.data.packing import batch_shape
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.system.errors import DataError
from mlx_esm_kernels.training.validation import Validation, perplexity

TINY = ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=64)


def random_proteins(count, length=30, letters="ACDEFGHIKLMNPQRSTVWY", seed=0):
    rng = np.random.default_rng(seed)
    return Proteins.from_sequences(
        ["".join(rng.choice(list(letters), length)) for _ in range(count)]
    )


def validate(proteins, train, valid, **options):
    return Validation(proteins, train, valid, ESM1B, max_positions=64, **options)


def test_two_validations_of_a_model_agree_to_the_last_bit():
    proteins = random_proteins(30)
    mx.random.seed(0)
    model = ESM1(TINY)
    validations = [validate(proteins, range(20), range(20, 30)) for _ in range(2)]
    first, second, again = (
        sum(validation.losses(model)) for validation in (*validations, validations[0])
    )
    assert first == second == again


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    proteins = random_proteins(30)
    model = ESM1(TINY)
    model.embed_tokens.weight = mx.zeros_like(model.embed_tokens.weight)
    validation = validate(proteins, range(20), range(20, 30))
    assert math.exp(sum(validation.losses(model))) == pytest.approx(33, rel=1e-4)


def test_the_loss_is_a_mean_over_targets_however_they_fall_into_batches():
    proteins = random_proteins(700)  # 22,400 tokens: three batches, the last one not full
    validation = validate(proteins, [0], range(700))
    assert len(validation) == 3
    assert validation.num_targets == pytest.approx(0.15 * 700 * 30, abs=2)
    assert validation.num_proteins == 700
    model = ESM1(TINY)
    model.embed_tokens.weight = mx.zeros_like(model.embed_tokens.weight)
    alanine = ESM1B.tokens.index("A")
    model.lm_head.bias = mx.where(mx.arange(33) == alanine, 20.0, 0.0)  # costs 20 nats where wrong
    right = sum(
        int(((targets == alanine) * weights).sum())
        for _, _, _, targets, weights in validation._batches
    )
    expected = 20 * (1 - right / validation.num_targets)
    assert sum(validation.losses(model)) == pytest.approx(expected, rel=1e-4)


def test_residue_frequencies_are_counted_on_training_proteins_alone():
    proteins = Proteins.from_sequences(["AAAAC", "DDDD", "AXXCA"])
    frequencies = residue_frequencies(proteins, np.array([0, 2]), ESM1B)
    counts = dict.fromkeys("ACDEFGHIKLMNPQRSTVWY", 1)  # each begins at one
    counts["A"] += 6
    counts["C"] += 2
    for token, frequency in zip(ESM1B.tokens, frequencies, strict=True):
        assert frequency == pytest.approx(counts.get(token, 0) / sum(counts.values()))


def test_the_unigram_loss_is_the_entropy_of_the_residues_where_both_sides_are_alike():
    proteins = random_proteins(4000, letters="AAACCD")
    validation = validate(proteins, range(2000), range(2000, 4000))
    entropy = -(1 / 2 * math.log(1 / 2) + 1 / 3 * math.log(1 / 3) + 1 / 6 * math.log(1 / 6))
    assert validation.unigram_loss == pytest.approx(entropy, abs=0.02)
    assert validation.floor_loss is None


def test_a_floor_is_taken_over_every_target_there_is():
    seen = []

    def optimal_loss(inputs, tokens, segment_ids, is_target, shown):
        assert (inputs[is_target] == ESM1B.mask_idx).all()
        assert shown == TO_MEASURE
        assert np.array_equal(inputs[~is_target], tokens[~is_target])
        seen.append(int(is_target.sum()))
        return 0.5 * is_target.sum(), int(is_target.sum())

    proteins = random_proteins(700)
    validation = validate(proteins, [0], range(700), optimal_loss=optimal_loss)
    assert sum(seen) == validation.num_targets
    assert validation.floor_loss == pytest.approx(0.5)


def test_a_model_that_copies_what_it_sees_gains_nothing():
    """A target is never shown as itself: to read it off the input is no knowledge of proteins."""
    proteins = random_proteins(60)
    validation = validate(proteins, range(30), range(30, 60))
    for inputs, _, positions, _, weights in validation._batches:
        seen = np.array(inputs).reshape(-1)[np.array(positions)[np.array(weights) > 0]]
        assert (seen == ESM1B.mask_idx).all()


def test_there_is_no_floor_for_cropped_proteins():
    def optimal_loss(*arguments):
        raise AssertionError("called for a protein that is not whole")

    proteins = random_proteins(20, length=63)
    assert validate(proteins, [0], range(1, 20), optimal_loss=optimal_loss).floor_loss is None


def test_perplexity_is_the_exponential_and_never_an_error():
    assert perplexity(math.log(18)) == pytest.approx(18)
    assert perplexity(1e30) == math.inf


def test_many_held_out_proteins_are_a_sample_of_bounded_size():
    validation = validate(random_proteins(700), [0], range(700), max_tokens=9000)
    assert len(validation) == 2


def test_proteins_without_amino_acids_are_answered_with_a_sentence():
    proteins = Proteins.from_sequences(["ACD", "XXZZ"])
    with pytest.raises(DataError, match="held-out proteins have none of the 20 amino acids"):
        validate(proteins, [0], [1])


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=30),
    tokens_per_batch=st.integers(32, 5000),
    max_positions=st.integers(8, 1024),
)
def test_a_batch_is_within_its_budget_and_as_long_as_it_can_be(
    lengths, tokens_per_batch, max_positions
):
    lengths = np.array(lengths)
    rows, row_length = batch_shape(
        lengths, tokens_per_batch=tokens_per_batch, max_positions=max_positions, num_specials=2
    )
    assert rows >= 1
    assert rows * row_length <= tokens_per_batch
    assert row_length <= max_positions
    longest = min(int(lengths.max()) + 2, max_positions)
    assert row_length >= min(longest, tokens_per_batch)


def test_real_proteins_get_rows_of_the_whole_table_and_few_ones_no_empty_rows():
    many, few = np.full(10_000, 300), np.full(10, 28)
    limits = {"max_positions": 1024, "num_specials": 2}
    assert batch_shape(many, tokens_per_batch=4096, **limits) == (4, 1024)
    assert batch_shape(many, tokens_per_batch=500, **limits) == (1, 500)
    assert batch_shape(few, tokens_per_batch=4096, **limits) == (1, 300)
    assert batch_shape(few, tokens_per_batch=4096, max_positions=1024, num_specials=1) == (1, 290)
