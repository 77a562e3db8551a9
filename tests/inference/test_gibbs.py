"""What the samplers draw, against distributions that are known, and which of them is chosen."""

import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import esm1, esm1b, esm2
from table_model import TableModel

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.frequencies import natural_frequencies
from mlx_esm_kernels.inference import likelihood
from mlx_esm_kernels.inference.filling import fill_masks
from mlx_esm_kernels.inference.sampling import (
    ORDERS,
    SamplerWarning,
    Sampling,
    settled,
    warn_untrained,
)

MASK = ESM1B.mask_idx
LETTERS = "ACD"


def masks_of(length, alphabet=ESM1B):
    return alphabet.with_specials(np.full(length, alphabet.mask_idx))


def tokens_of(text):
    ids = [MASK if letter == "*" else ESM1B.encode(letter)[0] for letter in text]
    return ESM1B.with_specials(np.array(ids))


def text_of(row):
    return ESM1B.decode(row[1:-1])


class JointModel(TableModel):
    """Knows a joint distribution over three residues, and says what follows from it."""

    def __init__(self, objective="diffusion"):
        super().__init__(np.zeros((5, 33)), objective=objective)
        texts = ["".join(letters) for letters in itertools.product(LETTERS, repeat=3)]
        weights = np.random.default_rng(7).dirichlet(np.full(len(texts), 0.6))
        self.joint = dict(zip(texts, weights, strict=True))
        self.answers = {}

    def logits_of(self, row):
        key = row.tobytes()
        if key not in self.answers:
            self.answers[key] = self.conditionals(row)
        return self.answers[key]

    def conditionals(self, row):
        shown = ESM1B.decode(row[1:-1]).replace("<mask>", "*")
        logits = np.full((5, 33), -1e4)
        for column, letter in itertools.product(range(3), LETTERS):
            fits = [
                weight
                for text, weight in self.joint.items()
                if text[column] == letter
                and all(other in ("*", text[n]) for n, other in enumerate(shown) if n != column)
            ]
            logits[column + 1, ESM1B.encode(letter)[0]] = np.log(max(sum(fits), 1e-300))
        return logits.astype(np.float32)


def distance(model, how, count=2_000):
    """How far the drawn proteins are from the joint: half the sum of absolute differences."""
    drawn = Counter(map(text_of, fill_masks(model, [masks_of(3)] * count, how)))
    assert set(drawn) <= set(model.joint)
    return sum(abs(drawn[text] / count - p) for text, p in model.joint.items()) / 2


# 2,000 draws of 27 texts are 0.04 from their own distribution on the average.


@pytest.mark.parametrize("order", ORDERS)
def test_unmasking_one_by_one_draws_from_the_joint_distribution(order):
    assert distance(JointModel(), Sampling(order=order, longest_run=0)) < 0.06


def test_unmasking_in_one_step_does_not():
    assert distance(JointModel(), Sampling(order="random", steps=1, longest_run=0)) > 0.2


def test_gibbs_with_blocks_of_one_comes_to_the_joint_distribution():
    how = Sampling("gibbs", rounds=8, block=1e-9, longest_run=0)
    assert distance(JointModel(), how) < 0.06


def test_gibbs_with_all_in_one_block_does_not():
    how = Sampling("gibbs", rounds=3, block=1.0, longest_run=0)
    assert distance(JointModel(), how) > 0.2


def test_a_longest_run_is_the_joint_of_those_that_have_none_longer():
    model = JointModel()
    drawn = fill_masks(
        model,
        [masks_of(3)] * 2_000,
        Sampling("gibbs", rounds=8, block=1e-9, longest_run=2),
    )
    counts = Counter(map(text_of, drawn))
    allowed = {t: p for t, p in model.joint.items() if len(set(t)) > 1}
    total = sum(allowed.values())
    assert set(counts) <= set(allowed)
    assert sum(abs(counts[t] / 2_000 - p / total) for t, p in allowed.items()) / 2 < 0.06


def test_a_round_redraws_each_position_once_in_blocks_of_a_tenth():
    fake = TableModel(np.zeros((32, 33)))
    fill_masks(fake, [masks_of(25)] * 3, Sampling("gibbs", rounds=2))
    masked = np.stack(fake.seen) == MASK  # (steps, N, L)
    assert len(masked) == 20
    assert set(masked.sum(axis=2).ravel().tolist()) == {2, 3}
    for round_ in (masked[:10], masked[10:]):
        assert (round_.sum(axis=0)[:, 1:-1] == 1).all()
    assert not np.array_equal(masked[:10], masked[10:])
    assert not np.array_equal(masked[:, 0], masked[:, 1])


def test_gibbs_starts_from_residues_as_frequent_as_in_known_proteins():
    fake = TableModel(np.zeros((402, 33)))
    fill_masks(fake, [masks_of(400)] * 20, Sampling("gibbs", rounds=1))
    first = fake.seen[0][:, 1:-1]
    ids = ESM1B.amino_acid_ids
    counts = np.array([(first == i).sum() for i in ids])
    shares = counts / counts.sum()
    assert shares == pytest.approx(natural_frequencies(), abs=0.012)
    assert natural_frequencies().sum() == pytest.approx(1)


def test_gibbs_starts_from_a_given_sequence():
    fake = TableModel(np.zeros((12, 33)))
    start = tokens_of("MKTAYIAKQR")
    fill_masks(fake, [masks_of(10)], Sampling("gibbs", rounds=1), starts=[start])
    seen = fake.seen[0][0]
    assert (seen == MASK).sum() == 1
    assert (seen == start).sum() == 11


def test_burn_in_draws_from_all_residues_and_the_rounds_after_it_as_asked():
    logits = np.zeros((42, 33))
    logits[:, ESM1B.encode("A")[0]] = 2.0  # 28 % of the draws at temperature 1
    fake = TableModel(logits)
    how = Sampling("gibbs", rounds=2, burn_in=1, max_prob_only=True, longest_run=0)
    (row,) = fill_masks(fake, [masks_of(40)], how)
    assert text_of(row) == "A" * 40
    halfway = fake.seen[10][0]
    assert 3 < (halfway == ESM1B.encode("A")[0]).sum() < 22


SAMPLERS = [
    Sampling("unmask", order="random", seed=5),
    Sampling("unmask", order="confident", seed=5),
    Sampling("unmask", order="left-to-right", seed=5),
    Sampling("unmask", order="random", steps=5, schedule="cosine", seed=5),
    Sampling("gibbs", rounds=2, block=0.1, seed=5),
    Sampling("gibbs", rounds=2, burn_in=1, block=0.5, top_p=0.5, temperature=0.5, seed=5),
]


@pytest.mark.parametrize("how", SAMPLERS)
@pytest.mark.parametrize("make", [esm1, esm1b, esm2])
def test_a_protein_is_the_same_alone_and_among_others_of_other_lengths(how, make, monkeypatch):
    model = make()
    lengths = [7, 19, 5, 19, 12, 30, 8]
    templates = [masks_of(length, model.alphabet) for length in lengths]
    together = fill_masks(model, templates, how)
    monkeypatch.setattr(likelihood, "TOKENS_PER_PASS", 50)
    in_passes = fill_masks(model, templates, how)
    for number, template in enumerate(templates):
        (alone,) = fill_masks(model, [template], how, first=number)
        assert np.array_equal(alone, together[number])
        assert np.array_equal(in_passes[number], together[number])
    assert not np.array_equal(together[1], together[3])


@given(
    st.lists(st.text("*ACDWX", min_size=1, max_size=15), min_size=1, max_size=4),
    st.sampled_from(SAMPLERS),
    st.floats(0, 1, exclude_min=True),
)
def test_kept_residues_stay_and_only_amino_acids_come(texts, how, block):
    if how.sampler == "gibbs":
        how = Sampling("gibbs", rounds=2, block=block)
    elif how.steps:
        how = Sampling("unmask", steps=1)
    templates = [tokens_of(text) for text in texts if "*" in text]
    drawn = []
    filled = fill_masks(small_model(), templates, how, drawn.append)
    assert sum(drawn) == sum(
        settled(how, small_model(), templates).draws(int((t == MASK).sum())) for t in templates
    )
    for template, row in zip(templates, filled, strict=True):
        masks = template == MASK
        assert np.isin(row[masks], ESM1B.amino_acid_ids).all()
        assert np.array_equal(row[~masks], template[~masks])


_models = []


def small_model():
    if not _models:
        _models.append(esm1b())
    return _models[0]


@pytest.mark.parametrize(
    ("objective", "text", "given", "expected"),
    [
        ("mlm", "*" * 20, {}, "gibbs"),
        ("mlm", "MKTAYIAKQRMKTAYIAK**", {}, "unmask"),
        ("mlm", "*" * 20, {"order": "random"}, "unmask"),
        ("diffusion", "*" * 20, {}, "unmask"),
        ("mixed", "*" * 20, {}, "unmask"),
        ("diffusion", "*" * 20, {"rounds": 3}, "gibbs"),
    ],
)
def test_auto_is_what_suits_the_model(objective, text, given, expected):
    model = TableModel(np.zeros((22, 33)), objective=objective)
    how = settled(Sampling(**given), model, [tokens_of(text)])
    assert how.sampler == expected
    assert settled(how, model, [tokens_of(text)]) == how


@pytest.mark.parametrize(
    ("objective", "sampler", "text", "warned"),
    [
        ("mlm", "unmask", "*" * 20, True),
        ("mlm", "unmask", "MKTAYIAKQRMKTAYIAK**", False),
        ("mlm", "gibbs", "*" * 20, False),
        ("diffusion", "unmask", "*" * 20, False),
        ("diffusion", "gibbs", "*" * 20, False),
    ],
)
def test_a_model_is_said_not_to_be_trained_for_many_masks(objective, sampler, text, warned):
    model = TableModel(np.zeros((22, 33)), objective=objective)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_untrained(Sampling(sampler), model, [tokens_of(text)])
    assert [one.category for one in caught] == [SamplerWarning] * warned
