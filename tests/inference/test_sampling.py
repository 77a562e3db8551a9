"""Unmasking: which positions, which residues, how often, and how likely the result is."""

import re

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_model import TableModel

from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B
from mlx_esm_kernels.inference import likelihood
from mlx_esm_kernels.inference.drawing import choose, nucleus
from mlx_esm_kernels.inference.filling import fill_masks, schedule_counts
from mlx_esm_kernels.inference.likelihood import pseudo_perplexity
from mlx_esm_kernels.inference.sampling import ORDERS, SCHEDULES, Sampling
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.weights.first_mlx_esm import FIRST_MLX_ESM

AMINO_ACIDS = set(ESM1B.amino_acid_ids.tolist())
MASK = ESM1B.mask_idx


@pytest.fixture(scope="module")
def model():
    """A small model with opinions: its parameters are scaled up from their initial values."""
    mx.random.seed(3)
    model = ESM1(ESM1Config(1, 16, 32, 2, max_positions=70))
    model.embed_tokens.weight = model.embed_tokens.weight * 40
    model.embed_positions.weight = model.embed_positions.weight * 40
    # What a real model does at masks now and then: specials look best.
    model.lm_head.bias[mx.array([0, 1, 2, 3, 31, 32])] = 9.0
    return model


def table(length, **columns):
    """Logits (L, V): uniform, but for `c3={"A": 5.0}`: the logits of column 3."""
    logits = np.zeros((length, len(ESM1B)))
    for column, values in columns.items():
        for residue, value in values.items():
            logits[int(column[1:]), ESM1B.encode(residue)[0]] = value
    return logits


def tokens_of(text, count=1):
    """`MK*T` -> (count, L) tokens with cls and eos; * is a mask."""
    ids = [MASK if letter == "*" else ESM1B.encode(letter)[0] for letter in text]
    return np.tile([ESM1B.cls_idx, *ids, ESM1B.eos_idx], (count, 1))


def text_of(row):
    return ESM1B.decode(row[1:-1])


@given(
    st.text("*ACDWX", min_size=1, max_size=12),
    st.integers(1, 3),
    st.builds(
        Sampling,
        temperature=st.floats(1e-320, 1e300),
        top_p=st.floats(0, 1, exclude_min=True),
        sampler=st.just("unmask"),
        order=st.sampled_from(ORDERS),
        longest_run=st.integers(0, 3),
        max_prob_only=st.booleans(),
        seed=st.integers(0, 2**70),
    ),
)
def test_masks_become_amino_acids_and_all_else_stays(model, text, count, how):
    tokens = tokens_of(text, count)
    steps = []
    filled = np.stack(fill_masks(model, tokens, how, steps.append))
    masks = tokens == MASK
    assert set(filled[masks].tolist()) <= AMINO_ACIDS
    assert np.array_equal(filled[~masks], tokens[~masks])
    assert np.array_equal(tokens, tokens_of(text, count)), "the argument is left as it is"
    assert steps == [count] * text.count("*")


@pytest.mark.parametrize("order", ORDERS)
def test_the_seed_decides_and_a_sample_does_not_depend_on_the_others(model, order):
    three = fill_masks(model, tokens_of("*" * 20, 3), Sampling(order=order))
    again = fill_masks(model, tokens_of("*" * 20, 3), Sampling(order=order))
    two = fill_masks(model, tokens_of("*" * 20, 2), Sampling(order=order))
    other = fill_masks(model, tokens_of("*" * 20, 3), Sampling(order=order, seed=1))
    assert np.array_equal(three, again)
    assert np.array_equal(three[:2], two)
    texts = {text_of(row) for row in (*three, *other)}
    assert len(texts) == 6


def test_left_to_right_goes_from_left_to_right():
    fake = TableModel(table(8))
    fill_masks(fake, tokens_of("*A**B*", 2), Sampling(order="left-to-right"))
    assert fake.filled_columns() == [[1, 3, 4, 6]] * 2


def test_confident_takes_the_surest_mask_first_and_looks_at_amino_acids_only():
    logits = table(6, c1={"A": 1.0}, c2={"C": 3.0}, c3={"D": 0.1}, c4={"E": 2.0})
    logits[3, MASK] = 50.0  # a special token that is likely makes no residue sure
    fake = TableModel(logits)
    fill_masks(fake, tokens_of("****", 2), Sampling(order="confident"))
    assert fake.filled_columns() == [[2, 4, 1, 3]] * 2


def test_random_order_visits_each_mask_once_in_an_order_of_each_samples_own():
    fake = TableModel(table(12))
    fill_masks(fake, tokens_of("*" * 10, 8), Sampling(order="random"))
    orders = fake.filled_columns()
    assert all(sorted(order) == list(range(1, 11)) for order in orders)
    assert len({tuple(order) for order in orders}) == 8


def test_each_choice_is_seen_by_the_next(model):
    """The last mask is filled as if the others had always been there."""
    how = Sampling(order="left-to-right", max_prob_only=True)
    (filled,) = fill_masks(model, tokens_of("*****"), how)
    last = filled.copy()
    last[5] = MASK
    assert np.array_equal(fill_masks(model, [last], how), [filled])


def test_max_prob_only_takes_the_best_residue_whatever_temperature_and_seed():
    fake = TableModel(table(5, c1={"W": 0.1}, c2={"C": 0.2}, c3={"K": 0.1}))
    for seed in range(5):
        how = Sampling("unmask", temperature=100.0, max_prob_only=True, seed=seed)
        assert text_of(fill_masks(fake, tokens_of("***"), how)[0]) == "WCK"


def shares(how, count=5_000):
    """How often A, C, D and the others come out of logits 3, 2, 1 and -inf."""
    values = dict.fromkeys("EFGHIKLMNPQRSTVWY", -np.inf) | {"A": 3.0, "C": 2.0, "D": 1.0}
    logits = np.array([[values[ESM1B.tokens[i]] for i in ESM1B.amino_acid_ids]])
    streams = [np.random.default_rng([how.seed, i]) for i in range(count)]
    chosen = choose(np.tile(logits, (count, 1)), how, streams)
    letters = ["ACD".find(ESM1B.tokens[i]) for i in ESM1B.amino_acid_ids[chosen]]
    assert min(letters) >= 0, "what has no probability never comes out"
    return np.bincount(letters, minlength=3) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_residues_come_out_as_often_as_the_tempered_softmax_says(temperature):
    weights = np.exp(np.array([3.0, 2.0, 1.0]) / temperature)
    # 5,000 draws: a share is off by 0.007 (one standard deviation) at most.
    assert shares(Sampling(temperature=temperature)) == pytest.approx(
        weights / weights.sum(), abs=0.03
    )


def test_top_p_keeps_the_fewest_residues_that_reach_it_in_their_proportions():
    # The softmax of 3, 2, 1 is 0.665, 0.245, 0.090.
    assert shares(Sampling(top_p=0.6), 100) == pytest.approx([1, 0, 0])
    assert shares(Sampling(top_p=0.7)) == pytest.approx([0.731, 0.269, 0], abs=0.03)
    assert shares(Sampling(top_p=0.95)) == pytest.approx([0.665, 0.245, 0.090], abs=0.03)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20).filter(lambda p: sum(p) > 0.01),
    st.floats(0, 1, exclude_min=True),
)
def test_a_nucleus_is_the_smallest_set_that_reaches_top_p(weights, top_p):
    probabilities = np.array([weights]) / sum(weights)
    kept = nucleus(probabilities, top_p)
    inside = kept[0] > 0
    assert np.array_equal(kept[0, inside], probabilities[0, inside])
    assert probabilities[0, inside].sum() >= top_p - 1e-12
    assert probabilities[0, inside].sum() - probabilities[0, inside].min() < top_p + 1e-12
    assert probabilities[0, ~inside].max(initial=0) <= probabilities[0, inside].min()


def test_pseudo_perplexity_masks_each_residue_in_turn_the_last_ones_too(model):
    tokens = np.concatenate([tokens_of("MKTWYX"), tokens_of("AAAACC")])
    expected = []
    for row in tokens:
        surprise = []
        for column in range(1, len(row) - 1):
            copy = row.copy()
            copy[column] = MASK
            logits = np.array(model(mx.array(copy[None]))["logits"])[0, column].astype(np.float64)
            surprise.append(np.log(np.exp(logits).sum()) - logits[row[column]])
        expected.append(np.exp(np.mean(surprise)))
    scored = []
    actual = pseudo_perplexity(model, tokens, scored.append)
    assert actual == pytest.approx(expected, rel=1e-5)
    assert sum(scored) == 12


def test_pseudo_perplexity_is_20_for_a_guess_among_20_and_1_for_certainty():
    guess = np.full((6, len(ESM1B)), -np.inf)
    guess[:, ESM1B.amino_acid_ids] = 0.0
    guess = np.maximum(guess, -1e4)
    assert pseudo_perplexity(TableModel(guess), tokens_of("MKTW")) == pytest.approx([20.0])
    certain = table(6, c1={"M": 1e4}, c2={"K": 1e4}, c3={"T": 1e4}, c4={"W": 1e4})
    assert pseudo_perplexity(TableModel(certain), tokens_of("MKTW")) == pytest.approx([1.0])


def test_pseudo_perplexity_never_lets_the_model_see_what_it_scores():
    fake = TableModel(table(6))
    pseudo_perplexity(fake, tokens_of("MKTW", 3))
    seen = np.concatenate(fake.seen)
    assert (seen == MASK).sum(axis=1).tolist() == [1] * 12
    assert (seen == MASK).argmax(axis=1).tolist() == [1, 2, 3, 4] * 3


@pytest.mark.parametrize("order", ORDERS)
def test_many_passes_give_what_one_pass_gives(model, monkeypatch, order):
    def results():
        filled = np.stack(fill_masks(model, tokens_of("*A*" * 4, 7), Sampling(order=order)))
        return filled, pseudo_perplexity(model, filled)

    filled, perplexities = results()
    monkeypatch.setattr(likelihood, "TOKENS_PER_PASS", 3 * 14 + 1)  # three rows in a pass
    in_passes, their_perplexities = results()
    assert np.array_equal(filled, in_passes)
    assert perplexities == pytest.approx(their_perplexities, rel=1e-5)


@given(st.integers(1, 300), st.data())
def test_a_schedule_fills_all_masks_and_at_least_one_in_each_step(masks, data):
    steps = data.draw(st.integers(1, masks))
    for schedule in SCHEDULES:
        counts = schedule_counts(masks, steps, schedule)
        assert len(counts) == steps
        assert min(counts) >= 1
        assert sum(counts) == masks
    assert schedule_counts(masks, None, "linear") == [1] * masks


def test_linear_fills_as_many_in_each_step_and_cosine_few_at_first():
    assert schedule_counts(100, 4, "linear") == [25] * 4
    counts = schedule_counts(100, 10, "cosine")
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (2, 15)


@pytest.mark.parametrize("order", ORDERS)
def test_masks_of_one_step_go_through_the_model_once(order):
    fake = TableModel(table(12, c9={"C": 3.0}, c10={"D": 2.0}))
    how = Sampling(order=order, steps=3, schedule="linear")
    fill_masks(fake, tokens_of("*" * 10, 2), how)
    left = [(rows == MASK).sum(axis=1).tolist() for rows in fake.seen]
    assert left == [[10, 10], [7, 7], [3, 3]]
    gone = (fake.seen[0] == MASK) & (fake.seen[1] != MASK)
    if order == "left-to-right":
        assert gone[0].nonzero()[0].tolist() == [1, 2, 3]
    elif order == "confident":
        assert {9, 10} <= set(gone[0].nonzero()[0].tolist())


def test_more_steps_than_masks_are_refused(model):
    rows = [*tokens_of("MK**"), *tokens_of("*****")]
    with pytest.raises(ValueError, match="steps must be at most the masks of a protein, 2; got 3"):
        fill_masks(model, rows, Sampling(steps=3))


@given(st.text("AC*", min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 99))
def test_no_draw_makes_a_run_longer_than_asked_for(text, longest, seed):
    likes_alanine = TableModel(table(32, **{f"c{n}": {"A": 9.0} for n in range(32)}))
    how = Sampling("unmask", longest_run=longest, seed=seed)
    (filled,) = fill_masks(likes_alanine, tokens_of(text), how)
    runs = re.finditer(r"(.)\1*", text_of(filled))
    for run in runs:
        drawn = "*" in text[run.start() : run.end()]
        assert not drawn or len(run[0]) <= longest


def test_without_a_longest_run_there_is_none():
    likes_alanine = TableModel(table(32, **{f"c{n}": {"A": 99.0} for n in range(32)}))
    (filled,) = fill_masks(likes_alanine, tokens_of("*" * 30), Sampling(longest_run=0))
    assert text_of(filled) == "A" * 30


def test_damaged_weights_are_named_and_not_sampled_from():
    fake = TableModel(np.full((5, len(ESM1B)), np.nan))
    with pytest.raises(ValueError, match="NaN or infinity: its weights are damaged"):
        fill_masks(fake, tokens_of("***"), Sampling())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0. For the most probable"),
        ({"temperature": float("nan")}, "temperature must be above 0; got nan"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1; got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1; got 1.1"),
        ({"order": "backwards"}, "order must be one of .* got 'backwards'"),
        ({"seed": -1}, "seed must be 0 or more; got -1"),
        ({"sampler": "mcmc"}, "sampler must be one of .* got 'mcmc'"),
        ({"steps": 0}, "steps must be 1 or more; got 0"),
        ({"schedule": "cosine"}, "how many masks each of the steps fills: give steps too"),
        ({"rounds": 0}, "rounds must be 1 or more; got 0"),
        ({"block": 0.0}, "block must be above 0 and at most 1; got 0.0"),
        ({"burn_in": 21}, "burn_in must be from 0 to the 20 rounds, .* got 21"),
        ({"longest_run": -1}, "longest_run must be 0 or more; got -1"),
        ({"order": "random", "rounds": 3}, "order are for the sampler unmask, rounds for gibbs"),
        ({"sampler": "gibbs", "steps": 3}, "the sampler gibbs has no steps: leave that out"),
        ({"sampler": "unmask", "block": 0.5}, "the sampler unmask has no block: leave that out"),
    ],
)
def test_impossible_sampling_is_refused_with_a_sentence(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**flags)


@pytest.mark.parametrize("alphabet", [ESM1_ALPHABET, FIRST_MLX_ESM], ids=["no eos", "first"])
def test_other_alphabets_have_every_residue_filled_and_scored(alphabet):
    guess = np.full((6, len(alphabet)), -1e4)
    guess[:, alphabet.amino_acid_ids] = 0.0
    template = np.full(4, alphabet.mask_idx)
    tokens = alphabet.with_specials(template)[None]
    guess = guess[: tokens.shape[1]]
    filled = np.stack(fill_masks(TableModel(guess, alphabet), tokens, Sampling()))
    residues = filled[0, alphabet.residue_slice]
    assert np.isin(residues, alphabet.amino_acid_ids).all()
    assert (filled[0, 0], residues.size) == (alphabet.cls_idx, 4)
    fake = TableModel(guess, alphabet)
    assert pseudo_perplexity(fake, filled) == pytest.approx([20.0])
    seen = np.concatenate(fake.seen) == alphabet.mask_idx
    assert seen.argmax(axis=1).tolist() == [1, 2, 3, 4]
