"""Masking: how much, what, and never what. The loss: against float64 numpy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masking import mask_tokens
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training.loss import masked_loss

NEVER_ASKED = sorted(set(range(len(ESM1B))) - set(ESM1B.amino_acid_ids.tolist()))


def packed_batch(rng, rows=2, length=40, ids=None):
    """Tokens (B, L) of packed proteins with padding at the end of each row, and segment ids."""
    tokens = np.full((rows, length), ESM1B.padding_idx, dtype=np.int32)
    segment_ids = np.zeros((rows, length), dtype=np.int32)
    for row in range(rows):
        at, segment = 0, 1
        while (size := int(rng.integers(3, 15))) + at <= length:
            residues = rng.choice(ESM1B.amino_acid_ids if ids is None else ids, size - 2)
            tokens[row, at : at + size] = [ESM1B.cls_idx, *residues, ESM1B.eos_idx]
            segment_ids[row, at : at + size] = segment
            at, segment = at + size, segment + 1
    return tokens, segment_ids


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 4),
    length=st.integers(3, 70),
    rate=st.sampled_from([0.01, 0.15, 0.5, 1.0]),
)
def test_only_amino_acids_are_targets_and_all_else_stays(seed, rows, length, rate):
    rng = np.random.default_rng(seed)
    every_token = np.arange(len(ESM1B))
    tokens, segment_ids = packed_batch(rng, rows, length, ids=every_token)
    tokens = np.where(segment_ids == 0, rng.choice(every_token, tokens.shape), tokens)
    masked = mask_tokens(tokens, segment_ids, ESM1B, rng, rate=rate)
    used = masked.weights > 0
    positions = masked.positions[used]

    assert np.array_equal(masked.targets[used], tokens.reshape(-1)[positions])
    assert not np.isin(masked.targets[used], NEVER_ASKED).any()
    assert (segment_ids.reshape(-1)[positions] != 0).all()
    assert len(np.unique(positions)) == len(positions)
    assert np.array_equal(np.flatnonzero(masked.is_target), positions)
    assert np.array_equal(masked.inputs[~masked.is_target], tokens[~masked.is_target])
    shown = masked.inputs[masked.is_target]
    assert np.isin(shown, [ESM1B.mask_idx, *ESM1B.amino_acid_ids]).all()


@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from([0.05, 0.15, 0.9]))
def test_the_number_of_targets_is_the_rate_and_their_room_depends_on_the_shape_alone(seed, rate):
    rng = np.random.default_rng(seed)
    tokens, segment_ids = packed_batch(rng, rows=3, length=50)
    masked = mask_tokens(tokens, segment_ids, ESM1B, rng, rate=rate)
    candidates = np.isin(tokens, ESM1B.amino_acid_ids).sum()
    assert masked.weights.sum() == max(1, round(rate * candidates))
    assert masked.positions.shape == (int(np.ceil(rate * tokens.size)),)
    assert masked.positions.shape == masked.targets.shape == masked.weights.shape


def test_fifteen_percent_are_targets_and_shown_as_80_10_10():
    rng = np.random.default_rng(0)
    tokens = rng.choice(ESM1B.amino_acid_ids, (200, 1000)).astype(np.int32)
    masked = mask_tokens(tokens, np.ones_like(tokens), ESM1B, rng)
    assert masked.is_target.mean() == 0.15
    shown, true = masked.inputs[masked.is_target], tokens[masked.is_target]
    as_mask = (shown == ESM1B.mask_idx).mean()
    as_itself = (shown == true).mean()
    # 30,000 targets: a share of 0.1 is known to +-0.0017 (one standard deviation). A random
    # residue is the true one in 1 of 20 cases.
    assert as_mask == pytest.approx(0.80, abs=0.01)
    assert as_itself == pytest.approx(0.10 + 0.10 / 20, abs=0.008)
    replaced = shown[(shown != ESM1B.mask_idx) & (shown != true)]
    counts = np.bincount(replaced, minlength=33)[ESM1B.amino_acid_ids]
    assert counts.min() > 0.6 * counts.mean()


def test_targets_fall_evenly_on_a_batch():
    rng = np.random.default_rng(1)
    tokens = rng.choice(ESM1B.amino_acid_ids, (4, 50)).astype(np.int32)
    counts = sum(
        mask_tokens(tokens, np.ones_like(tokens), ESM1B, rng).is_target for _ in range(2000)
    )
    assert counts.mean() == 300
    assert abs(counts - 300).max() < 5 * 16  # binomial, standard deviation 16


def test_the_same_seed_gives_the_same_masks_and_another_gives_others():
    tokens, segment_ids = packed_batch(np.random.default_rng(2))
    first, again, other = (
        mask_tokens(tokens, segment_ids, ESM1B, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert np.array_equal(first.inputs, again.inputs)
    assert np.array_equal(first.positions, again.positions)
    assert not np.array_equal(first.positions, other.positions)


def test_a_batch_with_nothing_to_ask_has_weight_zero_and_loss_zero():
    tokens = np.array([[ESM1B.cls_idx, ESM1B.unk_idx, ESM1B.eos_idx, ESM1B.padding_idx]])
    segment_ids = np.array([[1, 1, 1, 0]])
    masked = mask_tokens(tokens, segment_ids, ESM1B, np.random.default_rng(0))
    assert masked.weights.tolist() == [0]
    assert np.array_equal(masked.inputs, tokens)
    assert masked_loss_of(tiny_model(), masked, segment_ids).item() == 0


@pytest.mark.parametrize("rate", [0, -0.1, 1.01])
def test_a_rate_out_of_range_is_refused(rate):
    tokens, segment_ids = packed_batch(np.random.default_rng(0))
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1"):
        mask_tokens(tokens, segment_ids, ESM1B, np.random.default_rng(0), rate=rate)


def test_shapes_that_differ_are_refused():
    tokens, segment_ids = packed_batch(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"same shape \(B, L\); got \(2, 40\) and \(2, 39\)"):
        mask_tokens(tokens, segment_ids[:, 1:], ESM1B, np.random.default_rng(0))


def tiny_model():
    mx.random.seed(3)
    return ESM1(ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=64))


def masked_loss_of(model, masked, segment_ids):
    parts = (masked.inputs, segment_ids, masked.positions, masked.targets, masked.weights)
    return masked_loss(model, *(mx.array(part) for part in parts))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_loss_is_the_cross_entropy_that_float64_numpy_computes(seed):
    rng = np.random.default_rng(seed)
    tokens, segment_ids = packed_batch(rng)
    masked = mask_tokens(tokens, segment_ids, ESM1B, rng)
    model = tiny_model()
    # Logits far apart, so that a naive sum of exponentials would overflow float32.
    model.embed_tokens.weight = 40 * model.embed_tokens.weight
    logits = model(mx.array(masked.inputs), mx.array(segment_ids))["logits"]
    z = np.array(logits, dtype=np.float64).reshape(-1, len(ESM1B))

    nats = []
    for position in np.flatnonzero(masked.is_target):
        top = z[position].max()
        log_sum = top + np.log(np.exp(z[position] - top).sum())
        nats.append(log_sum - z[position, tokens.reshape(-1)[position]])
    loss = masked_loss_of(model, masked, segment_ids)
    assert loss.dtype == mx.float32
    assert loss.item() == pytest.approx(np.mean(nats), rel=1e-4)


def test_the_loss_of_a_half_precision_model_is_computed_in_float32():
    rng = np.random.default_rng(4)
    tokens, segment_ids = packed_batch(rng)
    masked = mask_tokens(tokens, segment_ids, ESM1B, rng)
    model = tiny_model()
    model.set_dtype(mx.float16)
    loss = masked_loss_of(model, masked, segment_ids)
    assert loss.dtype == mx.float32

    hidden = model.encode(mx.array(masked.inputs), mx.array(segment_ids)).reshape(-1, 16)
    logits = model.head(hidden[mx.array(masked.positions)])
    assert logits.dtype == mx.float16
    z = np.array(logits, dtype=np.float64)
    nats = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), masked.targets]
    assert loss.item() == pytest.approx(
        (nats * masked.weights).sum() / masked.weights.sum(), rel=1e-5
    )


def test_unused_places_have_no_say_in_the_loss():
    rng = np.random.default_rng(5)
    tokens, segment_ids = packed_batch(rng)
    masked = mask_tokens(tokens, segment_ids, ESM1B, rng)
    before = masked_loss_of(tiny_model(), masked, segment_ids).item()
    unused = masked.weights == 0
    assert unused.any()
    masked.targets[unused] = 9
    masked.positions[unused] = 3
    assert masked_loss_of(tiny_model(), masked, segment_ids).item() == before
