"""Scores of variants: fair-esm's numbers, and what the formulas say."""

import math
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import esm1, esm1b

from mlx_esm_kernels import pseudo_perplexity, residue_confidence, score_variants
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.mutants import parse_mutants
from mlx_esm_kernels.inference import variants
from mlx_esm_kernels.inference.variants import (
    STRATEGIES,
    MutantWarning,
    every_substitution,
    spearman,
)
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = {"esm1b": esm1b(), "esm1": esm1()}
SEQUENCE = "HPETLVKVKDAEDQWXYBGC"


def log_p(model, sequence, masked=None):
    """(residues, V): log p of every token at every residue, from one plain call of the model."""
    tokens = model.alphabet.with_specials(model.alphabet.encode(sequence))
    if masked is not None:
        tokens[masked + 1] = model.alphabet.mask_idx
    logits = np.array(model(mx.array(tokens[None]))["logits"])[0].astype(np.float64)
    logits = logits[model.alphabet.residue_slice]
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def ids_of(model, letters):
    return model.alphabet.encode(letters).tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_are_those_of_fair_esm_row_by_row(strategy):
    golden = np.load(GOLDEN / "fair_esm_scores.npz")
    model = ESM1(ESM1Config(2, 8, 16, 2, max_positions=24))
    model.load_weights([(k[6:], mx.array(golden[k])) for k in golden if k.startswith("model.")])
    actual = score_variants(
        model,
        str(golden["sequence"]),
        golden["mutants"].tolist(),
        strategy=strategy,
        offset=int(golden["offset"]),
    )
    assert len(set(np.round(golden[strategy], 3))) > 20
    assert actual == pytest.approx(golden[strategy], rel=2e-5, abs=2e-5)


def test_scores_are_those_of_fair_esm_as_it_is_installed(monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("esm")
    monkeypatch.syspath_prepend(str(GOLDEN))
    import make_scores

    torch.manual_seed(7)
    theirs, alphabet = make_scores.random_model()
    ours = ESM1(ESM1Config(2, 8, 16, 2, max_positions=24))
    state = {
        name: mx.array(value.numpy())
        for name, value in theirs.state_dict().items()
        if not name.startswith("contact_head") and name != "lm_head.weight"
    }
    ours.load_weights(list(state.items()))
    sequence = "MKTAYIAKQRQISFVKSHFS"
    mutants = [*every_substitution(sequence)[::9], "M1A:S20W", "K2A:T3C:I6L"]
    expected = make_scores.scores_of(theirs, alphabet, sequence, mutants, 1)
    for strategy in STRATEGIES:
        actual = score_variants(ours, sequence, mutants, strategy=strategy)
        assert actual == pytest.approx(expected[strategy], rel=2e-5, abs=2e-5)
    sys.modules.pop("make_scores")


@pytest.mark.parametrize("name", MODELS)
def test_each_strategy_is_its_formula(name):
    model = MODELS[name]
    mutants = ["H1A", "C20W", "P2D:K7R:G19S", "E3E"]
    parsed = parse_mutants(mutants, SEQUENCE, model.alphabet, 1)
    seen = log_p(model, SEQUENCE)
    expected = {strategy: [] for strategy in STRATEGIES}
    for some in parsed:
        marginal, masked, mutated = 0.0, 0.0, list(SEQUENCE)
        for one in some:
            new, old = ids_of(model, one.mutant + one.wild_type)
            marginal += seen[one.position, new] - seen[one.position, old]
            hidden = log_p(model, SEQUENCE, one.position)[one.position]
            masked += hidden[new] - hidden[old]
            mutated[one.position] = one.mutant
        text = "".join(mutated)
        expected["wt-marginals"].append(marginal)
        expected["masked-marginals"].append(masked)
        expected["pseudo-perplexity"].append(
            sum(log_p(model, text, i)[i, ids_of(model, text)[i]] for i in range(len(text)))
        )
    for strategy in STRATEGIES:
        actual = score_variants(model, SEQUENCE, mutants, strategy=strategy)
        assert actual == pytest.approx(expected[strategy], rel=1e-5, abs=1e-5)
    (score,) = score_variants(model, SEQUENCE, ["H1H"], strategy="pseudo-perplexity")
    assert pseudo_perplexity(model, SEQUENCE) == pytest.approx(math.exp(-score / len(SEQUENCE)))


@pytest.mark.parametrize("strategy", ["wt-marginals", "masked-marginals"])
def test_many_passes_give_what_one_gives_and_every_position_is_counted(monkeypatch, strategy):
    model, mutants = MODELS["esm1b"], every_substitution(SEQUENCE)
    assert len(mutants) == 19 * 18 + 2 * 20  # X and B may become any of the 20
    whole = score_variants(model, SEQUENCE, mutants, strategy=strategy)
    steps = []
    monkeypatch.setattr(variants, "TOKENS_PER_PASS", 70)
    in_passes = score_variants(model, SEQUENCE, mutants, strategy=strategy, on_step=steps.append)
    assert in_passes == pytest.approx(whole, rel=1e-5, abs=1e-5)
    parsed = parse_mutants(mutants, SEQUENCE, model.alphabet, 1)
    assert sum(steps) == variants.num_steps(SEQUENCE, parsed, strategy) == len(SEQUENCE)
    assert len(steps) == (1 if strategy == "wt-marginals" else 7)


def test_masked_marginals_take_many_positions_a_pass(monkeypatch):
    model = esm1b(max_positions=130)
    calls = []
    encode = ESM1.encode

    def counted(self, tokens, segment_ids=None):
        calls.append(tokens.shape)
        return encode(self, tokens, segment_ids)

    monkeypatch.setattr(ESM1, "encode", counted)
    score_variants(
        model, "MKTAYI" * 20, every_substitution("MKTAYI" * 20), strategy="masked-marginals"
    )
    assert len(calls) == 4
    assert all(rows * length <= 4096 for rows, length in calls)


@pytest.mark.parametrize("strategy", ["wt-marginals", "masked-marginals"])
@pytest.mark.parametrize("name", MODELS)
def test_in_a_long_sequence_a_residue_is_judged_in_a_window_around_it(name, strategy):
    model = MODELS[name]
    most = model.config.trained_residues
    sequence = "".join(np.random.default_rng(0).choice(list(STANDARD_RESIDUES), 3 * most))
    places = [0, 5, most, most + 1, 3 * most - 1]
    mutants = [f"{sequence[i]}{i + 1}W" for i in places]
    expected = []
    for place in places:
        start = min(max(place - most // 2, 0), 2 * most)
        part = sequence[start : start + most]
        table = log_p(model, part, place - start if strategy == "masked-marginals" else None)
        new, old = ids_of(model, "W" + sequence[place])
        expected.append(table[place - start, new] - table[place - start, old])
    actual = score_variants(model, sequence, mutants, strategy=strategy, long="window")
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-5)
    if model.config.has_position_table:
        with pytest.raises(ValueError, match=r"residues; the position table .* ask for windows"):
            score_variants(model, sequence, mutants, strategy=strategy)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_confidence_is_the_probability_of_each_residue_with_it_alone_masked(model):
    expected = [
        math.exp(log_p(model, SEQUENCE, i)[i, model.alphabet.encode(residue)[0]])
        for i, residue in enumerate(SEQUENCE)
    ]
    found = residue_confidence(model, SEQUENCE)
    assert found == pytest.approx(expected, rel=1e-4)
    assert pseudo_perplexity(model, SEQUENCE) == pytest.approx(np.exp(-np.log(found).mean()))


def test_there_are_no_windows_for_pseudo_perplexity():
    model = MODELS["esm1b"]
    with pytest.raises(ValueError, match="no windows for pseudo-perplexity"):
        score_variants(model, "M" * 50, ["M1A"], strategy="pseudo-perplexity", long="window")
    with pytest.raises(ValueError, match="50 residues"):
        pseudo_perplexity(model, "M" * 50)


@pytest.mark.parametrize(
    ("mutants", "sentence"),
    [
        (
            ["H24P", "P26W"],
            r"row 2, 'P26W': expected P at position 26; the sequence has E there\.$",
        ),
        (["H24P", "H124P"], "row 2, 'H124P': position 124 is out of range; .* positions 24 to 43"),
        (["H23P"], r"position 23 is out of range; .* With offset 23 every row would fit\.$"),
        (["P24A", "E25A"], r"the sequence has H there. With offset 23 every row would fit\.$"),
        (["H24P", "24P"], "row 2, '24P': '24P' is no mutant; expected the residue, its number"),
        (["H24P:"], "row 1, 'H24P:': '' is no mutant"),
        (["H24PP"], "no mutant"),
        (["H" + "1" * 5000 + "P"], "is no mutant"),
        ([""], "row 1, '': '' is no mutant"),
        (["H24J"], "'J' is no residue"),
        (["H24P:H24A"], "row 1, 'H24P:H24A': a position is changed twice"),
    ],
)
def test_a_mutant_that_cannot_be_is_named_with_its_row(mutants, sentence):
    with pytest.raises(ValueError, match=sentence):
        score_variants(MODELS["esm1b"], SEQUENCE, mutants, offset=24)


@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [
        ("", "the sequence is empty"),
        ("MK*T", r"has '\*' at position 3"),
        ("M-K", "'-' at position 2"),
    ],
)
def test_a_sequence_that_cannot_be_is_named(sequence, sentence):
    for call in (
        lambda: score_variants(MODELS["esm1b"], sequence, []),
        lambda: pseudo_perplexity(MODELS["esm1b"], sequence),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_case_and_spaces_do_not_matter_and_no_mutants_have_no_scores():
    model = MODELS["esm1b"]
    a = score_variants(model, "hpet lvkv", ["h1a : p2w"])
    assert a == score_variants(model, "HPETLVKV", ["H1A:P2W"])
    for strategy in STRATEGIES:
        assert score_variants(model, "HPE", [], strategy=strategy).shape == (0,)


def test_insertions_and_deletions_are_ranked_by_their_pseudo_perplexity():
    model, sequence = MODELS["esm1b"], "HPETLVKVKD"
    mutants = ["H1A", "P2del", "E3_T4insGW", "WT", "HPETLVKVK"]
    proteins = ["APETLVKVKD", "HETLVKVKD", "HPEGWTLVKVKD", sequence, "HPETLVKVK"]
    scores = score_variants(model, sequence, mutants, strategy="pseudo-perplexity")
    expected = [-len(sequence) * np.log(pseudo_perplexity(model, text)) for text in proteins]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    for strategy in ("wt-marginals", "masked-marginals"):
        with pytest.raises(ValueError, match=r"row 2: insertions .* only the strategy"):
            score_variants(model, sequence, mutants, strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_protein_that_is_cut_has_no_score_and_is_counted(strategy):
    model = MODELS["esm1b"]
    with pytest.warns(MutantWarning, match="2 of 4 mutants have no score"):
        scores = score_variants(model, "HPE", ["H1A", "P2*", "WT", "p.Glu3fs"], strategy=strategy)
    assert np.isnan(scores).tolist() == [False, True, False, True]
    if strategy != "pseudo-perplexity":
        assert scores[2] == 0


def test_nan_is_an_error_and_no_score():
    model = esm1b()
    model.lm_head.bias = model.lm_head.bias + float("nan")
    for strategy in STRATEGIES:
        with pytest.raises(ValueError, match="its weights are damaged"):
            score_variants(model, SEQUENCE, ["H1A"], strategy=strategy)
    with pytest.raises(ValueError, match="strategy must be one of"):
        score_variants(model, SEQUENCE, ["H1A"], strategy="best")


def test_spearman_shares_ranks_among_ties():
    # Worked by hand: ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
    assert spearman([1, 2, 2, 9], [10, 20, 30, 40]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([3, 1, 2], [30, 10, 20]) == pytest.approx(1)
    assert spearman([3, 1, 2], [-30, -10, -20]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert math.isnan(spearman([], []))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_spearman_is_pearson_of_mean_ranks(pairs):
    def ranks(values):
        return [(sum(w < v for w in values) + sum(w <= v for w in values) + 1) / 2 for v in values]

    a, b = (np.array(ranks(column)) for column in zip(*pairs, strict=True))
    found = spearman(*zip(*pairs, strict=True))
    if a.std() == 0 or b.std() == 0:
        assert math.isnan(found)
    else:
        expected = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
        assert found == pytest.approx(expected, abs=1e-12)


def test_every_substitution_is_there_once_and_parses():
    mutants = every_substitution("MKX", 24)
    assert len(set(mutants)) == len(mutants) == 19 + 19 + 20
    assert (mutants[0], mutants[-1]) == ("M24A", "X26Y")
    parse_mutants(mutants, "MKX", ESM1B, 24)
