"""Synthetic families: drawn as described, learnable, and with an entropy floor that is exact."""

import itertools

import numpy as np
import pytest

from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.masking import MASK_RATE, TO_MEASURE, TO_TRAIN, mask_tokens
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins, split_held_out
from mlx_esm_kernels.data.synthetic import (
    BACKGROUND,
    MATE,
    Family,
    SyntheticFamilies,
    make_family,
    make_sample,
    posterior,
)

MASK = 20


def tiny_family(rng, pairs, length=3):
    """A family with any joint whatever, not only those that make_family plants."""
    profile = rng.dirichlet(np.full(20, 0.5), size=length)
    joints = rng.dirichlet(np.full(400, 0.1), size=len(pairs)).reshape(-1, 20, 20)
    for joint, (i, j) in zip(joints, pairs, strict=True):
        profile[i], profile[j] = joint.sum(axis=1), joint.sum(axis=0)
    return Family(profile, np.array(pairs, dtype=np.int64).reshape(-1, 2), joints)


def probability(family, x):
    """P(x | family) for all proteins x (N, L), from the definition."""
    paired = set(family.pairs.reshape(-1).tolist())
    result = np.ones(len(x))
    for i in range(x.shape[1]):
        if i not in paired:
            result *= family.profile[i, x[:, i]]
    for joint, (i, j) in zip(family.joints, family.pairs, strict=True):
        result *= joint[x[:, i], x[:, j]]
    return result


def enumerated_answer(families, observed, position, shown):
    """P(x_i | observed, i is masked) by summing over every protein and every choice of targets."""
    length = len(observed)
    x = np.array(list(itertools.product(range(20), repeat=length)))
    prior = sum(probability(family, x) for family in families) / len(families)
    seen = np.zeros(len(x))
    for choice in itertools.product([False, True], repeat=length):
        if not choice[position]:
            continue
        chance = np.ones(len(x))
        for j, is_target in enumerate(choice):
            kept = x[:, j] == observed[j]
            if not is_target:
                chance *= (1 - MASK_RATE) * kept
            elif observed[j] == MASK:
                chance *= MASK_RATE * shown.as_mask
            else:
                chance *= MASK_RATE * (shown.as_random / 20 + shown.as_itself * kept)
        seen += chance
    joint = np.bincount(x[:, position], weights=prior * seen, minlength=20)
    return joint / joint.sum()


@pytest.mark.parametrize("shown", [TO_TRAIN, TO_MEASURE], ids=["to train", "to measure"])
@pytest.mark.parametrize("observed", [(3, 7, 12), (MASK, 7, 12), (3, MASK, MASK), (MASK,) * 3])
def test_the_posterior_is_that_of_brute_force_enumeration(observed, shown):
    rng = np.random.default_rng(0)
    families = [
        tiny_family(rng, [(0, 2)]),
        tiny_family(rng, [(2, 1)]),
        tiny_family(rng, []),
        tiny_family(rng, [], length=5),  # not of this length, so impossible
    ]
    possible = [i for i in range(3) if shown == TO_TRAIN or observed[i] == MASK]
    answers = posterior(families, np.array([observed]), shown)
    for position in possible:
        expected = enumerated_answer(families[:3], observed, position, shown)
        np.testing.assert_allclose(answers[0, position], expected, rtol=1e-10)


def packed(proteins, rows=4, row_length=96, seed=0):
    """Masked batches: (inputs, tokens, segment_ids, is_target) each."""
    rng = np.random.default_rng(seed)
    batches = PackedBatches(
        proteins, range(len(proteins)), ESM1B, rows=rows, row_length=row_length, seed=seed
    )
    for batch in batches:
        masked = mask_tokens(batch.tokens, batch.segment_ids, ESM1B, rng)
        yield masked.inputs, batch.tokens, batch.segment_ids, masked.is_target


def mean_loss(families, batches):
    sums = np.array([families.optimal_loss(*batch) for batch in batches])
    return sums[:, 0].sum() / sums[:, 1].sum()


@pytest.fixture(scope="module")
def sample():
    return make_sample()


@pytest.fixture(scope="module")
def batches(sample):
    _, valid = split_held_out(sample.proteins)
    texts = [ESM1B.decode(sample.proteins[i]) for i in valid]
    return list(packed(Proteins.from_sequences(texts), rows=8, row_length=512))


def test_the_loss_is_the_same_packed_as_one_by_one(sample):
    texts = [ESM1B.decode(sample.proteins[i]) for i in range(60)]
    for inputs, tokens, segment_ids, is_target in packed(Proteins.from_sequences(texts)):
        together = sample.optimal_loss(inputs, tokens, segment_ids, is_target)
        alone = np.zeros(2)
        for row in range(len(tokens)):
            for segment in range(1, segment_ids[row].max() + 1):
                own = np.flatnonzero(segment_ids[row] == segment)
                one = [a[row, own][None] for a in (inputs, tokens, is_target)]
                ones = np.ones_like(one[0])
                alone += sample.optimal_loss(one[0], one[1], ones, one[2])
        assert together == pytest.approx(tuple(alone), rel=1e-12)


def test_the_floor_is_calibrated():
    # If the posterior is right, then on average -ln P(truth) is the posterior's own entropy.
    families = make_sample(seed=5, num_proteins=4000)
    nats, entropies, variance = 0.0, 0.0, 0.0
    symbol_of = np.full(33, MASK)
    symbol_of[ESM1B.amino_acid_ids] = np.arange(20)
    for inputs, tokens, segment_ids, is_target in packed(families.proteins, rows=8, row_length=512):
        nats += families.optimal_loss(inputs, tokens, segment_ids, is_target)[0]
        first = np.flatnonzero((tokens == ESM1B.cls_idx).reshape(-1))
        for start in first:
            segment = segment_ids.reshape(-1)[start]
            row = start // tokens.shape[1]
            own = np.flatnonzero(segment_ids[row] == segment)[1:-1]
            p = posterior(families.families, symbol_of[inputs[row, own]][None])[0][
                is_target[row, own]
            ]
            log_p = np.log(np.maximum(p, 1e-300))
            entropy = -(p * log_p).sum(axis=-1)
            entropies += entropy.sum()
            variance += ((p * log_p**2).sum(axis=-1) - entropy**2).sum()
    assert abs(nats - entropies) < 4 * np.sqrt(variance)
    assert 4 * np.sqrt(variance) < 0.05 * nats  # so the line above can fail


def test_landmarks_lie_far_apart(sample, batches):
    train, _ = split_held_out(sample.proteins)
    counts = sum(np.bincount(sample.proteins[i], minlength=33) for i in train)
    true = np.concatenate([tokens[is_target] for _, tokens, _, is_target in batches])
    unigram = -np.log((counts / counts.sum())[true]).mean()
    no_pairs = SyntheticFamilies([f.without_pairs() for f in sample.families], 1, 0)
    profiles = mean_loss(no_pairs, batches)
    floor = mean_loss(sample, batches)
    assert unigram > 2.8
    assert profiles < unigram - 0.9
    assert floor < profiles - 0.7
    assert 1.0 < floor < 1.2


def test_other_beliefs_about_the_families_lose(sample, batches):
    floor = mean_loss(sample, batches)
    blurred = [
        Family(0.9 * f.profile + 0.1 * BACKGROUND, f.pairs, 0.9 * f.joints + 0.1 / 400)
        for f in sample.families
    ]
    shifted = [
        Family(np.roll(f.profile, 1, axis=1), f.pairs, np.roll(f.joints, 1, axis=2))
        for f in blurred
    ]
    for wrong in (blurred, shifted):
        assert mean_loss(SyntheticFamilies(wrong, 1, 0), batches) > floor + 0.01


def test_proteins_are_drawn_as_the_families_say():
    family = make_family(24, np.random.default_rng(0))
    drawn = family.draw(40_000, np.random.default_rng(1))
    for i in range(24):
        np.testing.assert_allclose(
            np.bincount(drawn[:, i], minlength=20) / 40_000, family.profile[i], atol=0.012
        )
    for joint, (i, j) in zip(family.joints, family.pairs, strict=True):
        counts = np.bincount(20 * drawn[:, i] + drawn[:, j], minlength=400)
        np.testing.assert_allclose(counts.reshape(20, 20) / 40_000, joint, atol=0.012)
    # Positions of different pairs have nothing to do with each other.
    (a, _), (b, _) = family.pairs[:2]
    counts = np.bincount(20 * drawn[:, a] + drawn[:, b], minlength=400).reshape(20, 20)
    independent = np.outer(family.profile[a], family.profile[b])
    np.testing.assert_allclose(counts / 40_000, independent, atol=0.012)


def test_pairs_are_consistent():
    assert (MATE[MATE] == np.arange(20)).all()
    assert STANDARD_RESIDUES[MATE[STANDARD_RESIDUES.index("K")]] == "E"
    for family in make_sample(num_proteins=1).families:
        assert 0.3 < 2 * len(family.pairs) / len(family) <= 0.5
        assert len(set(family.pairs.reshape(-1).tolist())) == 2 * len(family.pairs)
        np.testing.assert_allclose(family.profile.sum(axis=1), 1)
        first, second = family.pairs.T
        np.testing.assert_allclose(family.joints.sum(axis=2), family.profile[first])
        np.testing.assert_allclose(family.joints.sum(axis=1), family.profile[second])


def test_the_seed_determines_the_sample():
    same, again, other = (make_sample(seed, num_proteins=50) for seed in (0, 0, 1))
    assert same.proteins.hashes.tolist() == again.proteins.hashes.tolist()
    assert same.proteins.hashes.tolist() != other.proteins.hashes.tolist()


def test_proteins_are_named_synthetic_with_their_family():
    sample = make_sample(num_proteins=40)
    for i, family in enumerate(sample.family_of.tolist()):
        assert sample.proteins.names[i] == f"synthetic_{i} family={family}"
        assert sample.proteins.lengths[i] == len(sample.families[family])
    assert set(sample.family_of.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9])
def test_families_may_be_short(length):
    families = make_sample(num_proteins=20, shortest=length, longest=length)
    (batch, *_) = packed(families.proteins)
    nats, count = families.optimal_loss(*batch)
    assert count > 0
    assert 0 < nats / count < 6


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"num_proteins": 0}, {"num_families": 0}, {"shortest": 0}, {"longest": 3}],
)
def test_make_sample_says_what_it_expected(change):
    with pytest.raises(ValueError, match=r"\[make_sample\] expected"):
        make_sample(**change)


def one_protein(sample):
    tokens = np.array([[0, *sample.proteins[0].tolist(), 2, 1, 1]], dtype=np.int32)
    segment_ids = (tokens != 1).astype(np.int32)
    is_target = np.zeros(tokens.shape, dtype=bool)
    is_target[0, 3] = True
    return tokens, segment_ids, is_target


def test_a_cropped_protein_has_no_known_floor(sample):
    tokens, segment_ids, is_target = one_protein(sample)
    short = np.delete(tokens, 5, axis=1)
    with pytest.raises(ValueError, match=r"whole protein, cls \.\.\. eos, of a length in \[24, 28"):
        sample.optimal_loss(short, short, segment_ids[:, 1:], is_target[:, 1:])
    no_eos = np.where(tokens == 2, 5, tokens)
    with pytest.raises(ValueError, match="whole protein"):
        sample.optimal_loss(no_eos, no_eos, segment_ids, is_target)


def test_odd_residues_and_targets_are_refused(sample):
    tokens, segment_ids, is_target = one_protein(sample)
    odd = tokens.copy()
    odd[0, 4] = ESM1B.unk_idx
    with pytest.raises(ValueError, match=r"inputs must hold the 20 amino acids .* got <unk>"):
        sample.optimal_loss(odd, tokens, segment_ids, is_target)
    odd[0, 4] = ESM1B.mask_idx
    with pytest.raises(ValueError, match=r"tokens must hold the 20 amino acids between .* <mask>"):
        sample.optimal_loss(tokens, odd, segment_ids, is_target)
    is_target[0, 0] = True
    with pytest.raises(ValueError, match="only residues may be targets; got 1 other"):
        sample.optimal_loss(tokens, tokens, segment_ids, is_target)
    with pytest.raises(ValueError, match=r"must have one shape \(B, L\)"):
        sample.optimal_loss(tokens, tokens, segment_ids, is_target[:, 1:])


def test_the_floor_is_the_same_in_an_alphabet_without_eos(sample):
    residues = [sample.proteins[i] for i in range(20)]
    losses = []
    for alphabet in (ESM1B, ESM1_ALPHABET):
        families = SyntheticFamilies(sample.families, 1, 0, alphabet)
        nats = 0.0
        for ids in residues:
            tokens = alphabet.with_specials(ids)[None]
            inputs, is_target = tokens.copy(), np.zeros(tokens.shape, dtype=bool)
            inputs[0, 4], is_target[0, 4] = alphabet.mask_idx, True
            nats += families.optimal_loss(inputs, tokens, np.ones_like(tokens), is_target)[0]
        losses.append(nats)
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] > 0
