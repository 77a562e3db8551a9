"""A model without a position table takes a protein of any length whole; one with a table does not.

The models here have "seen" 38 residues in training, or 39 where there is no eos.
"""

import warnings

import mlx.core as mx
import numpy as np
import pytest
from random_models import esm1, esm1b, esm2, randomised

from mlx_esm_kernels import embed, evaluate, predict_contacts, pseudo_perplexity, score_variants
from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.fitting.adapting import AdaptedPredictor
from mlx_esm_kernels.fitting.head import Head, HeadSpec
from mlx_esm_kernels.inference.contacts import contact_map, contact_rows
from mlx_esm_kernels.inference.embedding import INCLUDES
from mlx_esm_kernels.inference.requirements import LongProteinWarning
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config

ENDLESS = {"ESM-1": esm1(), "ESM-2": esm2()}
both = pytest.mark.parametrize("model", ENDLESS.values(), ids=ENDLESS)
is_told = pytest.mark.filterwarnings(
    "ignore::mlx_esm_kernels.inference.requirements.LongProteinWarning"
)


def sequence(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list(STANDARD_RESIDUES), length))


def tokens_of(model, text):
    return mx.array(model.alphabet.with_specials(model.alphabet.encode(text)))


def close(actual, expected, atol=2e-5):
    expected = np.array(expected)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(np.array(actual), expected, atol=atol * scale)


@both
@is_told
def test_it_is_embedded_whole_and_the_same_alone_packed_and_padded(model):
    long, short = sequence(150), sequence(20)
    tokens = tokens_of(model, long)
    found = model(tokens[None], repr_layers=[1, 2])["representations"]
    padded = np.full((2, 170), model.alphabet.padding_idx)
    padded[0, : len(tokens)] = np.array(tokens)
    padded[1, :20] = np.array(tokens_of(model, short))[:20]
    in_rows = model(mx.array(padded), repr_layers=[1, 2])["representations"]
    (alone,) = embed(model, [long], layers=(1, 2), include=INCLUDES)
    _, packed = embed(model, [short, long], layers=(1, 2), include=INCLUDES)
    residues = model.alphabet.residue_slice
    for layer in (1, 2):
        expected = found[layer][0][residues]
        close(alone.per_residue[layer], expected)
        close(packed.per_residue[layer], expected)
        close(in_rows[layer][0, : len(tokens)][residues], expected)
        close(alone.mean[layer], np.array(expected).mean(axis=0))
        close(alone.bos[layer], found[layer][0][0])
    close(alone.contacts, predict_contacts(model, tokens))


@both
def test_its_contacts_in_windows_come_some_rows_at_a_time(model):
    ids = model.alphabet.encode(sequence(130))
    rows = list(contact_rows(model, ids, "window"))
    assert sum(map(len, rows)) == 130
    assert max(map(len, rows)) <= model.config.trained_residues
    assert mx.array_equal(mx.concatenate(rows), contact_map(model, ids, "window"))


@both
@is_told
@pytest.mark.parametrize("strategy", ["wt-marginals", "masked-marginals", "pseudo-perplexity"])
def test_it_is_scored_whole(model, strategy):
    text = sequence(80)
    mutants = [f"{text[i]}{i + 1}{'A' if text[i] != 'A' else 'C'}" for i in (0, 50, 79)]
    first = model.alphabet.residue_slice.start

    def log_p(letters, masked):
        tokens = np.array(tokens_of(model, letters))
        if masked is not None:
            tokens[first + masked] = model.alphabet.mask_idx
        logits = np.array(model(mx.array(tokens[None]))["logits"][0], np.float64)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def score(mutant):
        i = int(mutant[1:-1]) - 1
        old, new = model.alphabet.encode(mutant[0] + mutant[-1]).tolist()
        if strategy == "pseudo-perplexity":
            changed = text[:i] + mutant[-1] + text[i + 1 :]
            ids = model.alphabet.encode(changed).tolist()
            return sum(log_p(changed, j)[first + j, ids[j]] for j in range(len(changed)))
        row = log_p(text, i if strategy == "masked-marginals" else None)[first + i]
        return row[new] - row[old]

    expected = [score(mutant) for mutant in mutants]
    close(score_variants(model, text, mutants, strategy=strategy), expected)
    if strategy != "pseudo-perplexity":
        seen = score_variants(model, text, mutants, strategy=strategy, long="window")
        assert np.abs(seen - expected).max() > 1e-3  # windows stay a choice


@both
def test_it_is_evaluated_whole_and_windows_stay_a_choice(model):
    proteins = [sequence(120), sequence(30)]
    with pytest.warns(LongProteinWarning):
        whole = evaluate(model, proteins)
    config = ESM1Config.from_dict({**model.config.to_dict(), "max_positions": 500})
    wide = evaluate(randomised(ESM1(config)), proteins)
    in_windows = evaluate(model, proteins, long="window")
    assert whole.perplexity == wide.perplexity != in_windows.perplexity


@both
def test_what_trains_with_a_head_sees_it_whole_or_in_windows(model):
    proteins = Proteins.from_sequences([sequence(90)], model.alphabet)
    whole = model(tokens_of(model, sequence(90))[None], repr_layers=[2])["representations"][2]
    whole = np.array(whole[0, model.alphabet.residue_slice])
    for long in ("error", "window"):
        spec = HeadSpec("regression", "residue", (), (2,), long, 16)
        rows = AdaptedPredictor(Head(spec), spec, model, proteins)._residues([proteins[0]])
        assert rows.shape == (90, 16)
        assert np.allclose(np.array(rows), whole, atol=1e-4) == (long == "error")


@both
def test_one_line_says_how_many_are_longer_than_any_in_training(model):
    trained = model.config.trained_residues
    with pytest.warns(LongProteinWarning) as caught:
        list(embed(model, [sequence(90), sequence(trained), sequence(50)]))
    (line,) = (str(warning.message) for warning in caught)
    assert line == (
        f"2 proteins of up to 90 residues are taken whole, and this model was trained on at most "
        f"{trained}; where that is not wanted, ask for windows (long: window)."
    )
    with pytest.warns(LongProteinWarning, match="a protein of 41 residues is taken whole"):
        score_variants(model, sequence(41), [sequence(41)[0] + "1M"])
    with pytest.warns(LongProteinWarning, match=r"trained on at most 3\d\.$"):
        pseudo_perplexity(model, sequence(41))


@both
def test_nothing_is_said_of_what_fits_or_is_seen_in_windows(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(embed(model, [sequence(model.config.trained_residues)]))
        list(embed(model, [sequence(100)], long="window"))
        evaluate(model, [sequence(100)], long="window")
        score_variants(model, sequence(41), [sequence(41)[0] + "1M"], long="window")


def test_a_position_table_ends_what_a_model_takes():
    model = esm1b()
    with pytest.raises(ValueError, match="has 39 residues; the position table of this model ends"):
        list(embed(model, [sequence(39)]))
    with pytest.raises(ValueError, match="the position table of this model ends at 38"):
        score_variants(model, sequence(39), ["M1A" if sequence(39)[0] == "M" else "WT"])
    with pytest.raises(ValueError, match="the position table of this model ends at 38"):
        evaluate(model, [sequence(39)])
