"""Evaluations: figures against float64, one protein at a time, whatever the packing."""

import math

import mlx.core as mx
import numpy as np
import pytest
from float64_model import float64_logits
from random_models import esm1, esm1b, randomised

import mlx_esm_kernels
from mlx_esm_kernels import ESM1, evaluate
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.baselines import FREQUENCIES, NEIGHBOURS, BaselineCounts
from mlx_esm_kernels.data.floor import FLOOR
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.residue_classes import RESIDUE_CLASSES
from mlx_esm_kernels.data.synthetic import make_sample
from mlx_esm_kernels.data.targets import draw_targets
from mlx_esm_kernels.inference.evaluation import MODEL, difference, summarised, yardsticks
from mlx_esm_kernels.inference.measuring import measure
from mlx_esm_kernels.inference.windows import tile
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.system.errors import DataError, UserError


def sequences(count=12, shortest=2, longest=38, seed=0):
    rng = np.random.default_rng(seed)
    return [
        "".join(rng.choice(list(STANDARD_RESIDUES), int(rng.integers(shortest, longest + 1))))
        for _ in range(count)
    ]


def draw(texts, draws=2):
    proteins = Proteins.from_sequences(texts)
    return draw_targets(proteins, np.arange(len(proteins)), ESM1B, draws)


def by_brute_force(model, targets):
    """(T, 20) ln p over the whole vocabulary, in float64, a window of a copy at a time."""
    rows = []
    for copy in range(len(targets.copies)):
        positions = targets.positions[targets.of_copy(copy)]
        ids = targets.ids(copy).copy()
        ids[positions] = ESM1B.mask_idx
        for window in tile(len(ids), model.config.trained_residues):
            logits = float64_logits(model, ESM1B.with_specials(ids[window.start : window.end]))
            log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            for position in positions:
                if window.keep_start <= position < window.keep_end:
                    rows.append(log_p[1 + position - window.start, ESM1B.amino_acid_ids])
    return np.array(rows)


@pytest.mark.parametrize("longest", [38, 120], ids=["whole", "in windows"])
def test_every_figure_is_that_of_float64(longest):
    model, texts = esm1b(), [*sequences(longest=longest), "MXXKTAYIAKQR"]
    targets = draw(texts)
    log_p = by_brute_force(model, targets)
    nats = -log_p[np.arange(len(targets)), targets.residues]
    found = evaluate(model, texts, draws=2, long="window")
    score = found.whole.scores[MODEL]
    assert (found.whole.num_targets, found.whole.num_proteins) == (len(targets), 13)
    assert score.nats.value == pytest.approx(nats.mean(), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats.mean()), rel=1e-4)
    assert found.accuracy == pytest.approx((log_p.argmax(axis=1) == targets.residues).mean())
    sums = [nats[targets.owners == p].sum() for p in range(13)]
    counts = np.bincount(targets.owners)
    error = math.sqrt(13 / 12 * ((sums - nats.mean() * counts) ** 2).sum()) / len(targets)
    assert score.nats.error == pytest.approx(error, rel=1e-4)
    assert found.perplexity_error == pytest.approx(found.perplexity * error, rel=1e-4)
    for a in range(20):
        if (targets.residues == a).any():
            mean = np.exp(log_p[targets.residues == a]).mean(axis=0)
            np.testing.assert_allclose(found.confusion[a], mean, rtol=1e-3, atol=1e-6)
    for part in found.by_residue:
        own = nats[targets.residues == STANDARD_RESIDUES.index(part.name)]
        assert part.scores[MODEL].nats.value == pytest.approx(own.mean(), rel=1e-4)
        assert part.num_targets == len(own)


def test_each_group_has_every_target_once():
    found = evaluate(esm1b(), sequences(30, longest=300), draws=1, long="window")
    for group in (found.by_length, found.by_position, found.by_class, found.by_residue):
        assert sum(part.num_targets for part in group) == found.whole.num_targets
        assert all(part.num_targets for part in group)
    assert sorted("".join(RESIDUE_CLASSES.values())) == sorted(STANDARD_RESIDUES)
    assert [part.name for part in found.by_position] == ["first 10", "between", "last 10"]
    assert found.by_length[0].name == "1 to 50"


def test_length_bins_and_places_are_what_they_are_called():
    texts = ["A" * n for n in (50, 51, 100, 101, 801)]
    found = evaluate(esm1b(), texts, draws=1, long="window")
    assert {part.name: part.num_proteins for part in found.by_length} == {
        "1 to 50": 1,
        "51 to 100": 2,
        "101 to 200": 1,
        "801 and more": 1,
    }
    ends = evaluate(esm1b(), ["A" * 22], draws=6).by_position
    targets = draw(["A" * 22], 6)
    assert [part.num_targets for part in ends] == [
        (targets.positions < 10).sum(),
        ((targets.positions >= 10) & (targets.positions < 12)).sum(),
        (targets.positions >= 12).sum(),
    ]


def answers_by_target(model, texts, tokens_per_pass):
    """Nats of every target, by protein, position and draw."""
    measured = measure({MODEL: model}, draw(texts), tokens_per_pass=tokens_per_pass, long="window")
    targets = measured.targets
    found = {}
    for copy in range(len(targets.copies)):
        own = targets.of_copy(copy)
        draw_number = copy // len(targets.indices)
        for position, nats in zip(
            targets.positions[own].tolist(), measured.answers[MODEL].nats[own], strict=True
        ):
            found[ESM1B.decode(targets.ids(copy)), draw_number, position] = nats
    return found


def test_order_packing_and_other_proteins_change_nothing_but_rounding():
    model, texts = esm1b(), sequences(longest=90)
    expected = answers_by_target(model, texts, 4096)
    assert answers_by_target(model, texts[::-1], 4096) == pytest.approx(expected, abs=1e-4)
    assert answers_by_target(model, texts, 64) == pytest.approx(expected, abs=1e-4)
    few = answers_by_target(model, texts[:3], 100)
    assert few == pytest.approx({key: expected[key] for key in few}, abs=1e-4)


def test_models_of_other_alphabets_are_asked_for_the_same_residues():
    texts = sequences()
    measured = measure({"1b": esm1b(), "1": esm1()}, draw(texts))
    alone = evaluate(esm1(), texts, draws=2)
    targets = measured.targets
    counts = BaselineCounts(targets.proteins, targets.indices, ESM1B)
    both = summarised(measured, "1", yardsticks(targets, counts))
    assert both.perplexity == pytest.approx(alone.perplexity, rel=1e-5)
    for name in (FREQUENCIES, NEIGHBOURS):
        theirs = (both.whole.scores[name].nats, alone.whole.scores[name].nats)
        assert theirs[0].value == pytest.approx(theirs[1].value)


def test_a_difference_is_paired():
    """Models that differ by a constant differ by exactly that: what is hard is hard for both."""
    targets = draw(sequences(40))
    measured = measure({"a": esm1b(0)}, targets)
    a = measured.answers["a"]
    shifted = type(a)(a.nats + 0.25, a.is_right)
    found = difference(shifted, a, targets.owners)
    assert found.value == pytest.approx(0.25)
    assert found.error == pytest.approx(0, abs=1e-12)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    model = ESM1(ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=64))
    model.embed_tokens.weight = mx.zeros_like(model.embed_tokens.weight)
    found = evaluate(model, sequences())
    assert found.perplexity == pytest.approx(33, rel=1e-4)
    assert found.perplexity_error == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(np.nan_to_num(found.confusion, nan=1 / 33), 1 / 33, rtol=1e-4)


def test_nobody_beats_the_floor_of_synthetic_families():
    families = make_sample(num_proteins=600)
    indices = np.arange(600)
    targets = draw_targets(families.proteins, indices, ESM1B, 1)
    others = yardsticks(targets, BaselineCounts(families.proteins, indices, ESM1B), families)
    found = summarised(measure({MODEL: esm1b()}, targets), MODEL, others)
    beyond = found.differences[FLOOR]
    assert beyond.value > 4 * beyond.error
    for name in (FREQUENCIES, NEIGHBOURS):
        beyond = difference(others[name], others[FLOOR], targets.owners)
        assert beyond.value > 4 * beyond.error


# What cannot be


def test_a_protein_that_is_too_long_says_what_to_do():
    with pytest.raises(UserError, match=r"2 proteins are too long.*ask for windows"):
        evaluate(esm1b(), ["M" * 40, "M" * 50, "MK"])


def test_no_residue_to_ask_for_is_a_sentence():
    with pytest.raises(DataError, match="none of the 20 amino acids"):
        evaluate(esm1b(), ["XX"])
    with pytest.raises(UserError, match="must hold at least one"):
        evaluate(esm1b(), [])


def test_a_model_without_a_language_head_is_a_sentence():
    with pytest.raises(UserError, match="no language head"):
        evaluate(esm1b(language_head=False), ["MKTAYI"])


def test_wrong_arguments_are_sentences():
    with pytest.raises(UserError, match="must be a list; got one text"):
        evaluate(esm1b(), "MKTAYI")
    with pytest.raises(UserError, match="draws must be at least 1"):
        evaluate(esm1b(), ["MKTAYI"], draws=0)
    with pytest.raises(UserError, match="long must be one of"):
        evaluate(esm1b(), ["MKTAYI"], long="crop")
    with pytest.raises(TypeError, match="expected a model"):
        evaluate("w.safetensors", ["MKTAYI"])


def test_damaged_weights_are_a_sentence():
    model = randomised(esm1b())
    model.lm_head.bias = mx.full((33,), math.nan)
    with pytest.raises(UserError, match="gives NaN or infinity"):
        evaluate(model, ["MKTAYI"])


def test_baselines_may_be_counted_on_other_proteins():
    own = evaluate(esm1b(), ["AAAAAAAA"], draws=1)
    other = evaluate(esm1b(), ["AAAAAAAA"], draws=1, baseline_from=["A" * 80, "AAAAAAAA"])
    assert own.whole.scores[FREQUENCIES].perplexity == pytest.approx(20)
    assert other.whole.scores[FREQUENCIES].perplexity == pytest.approx(100 / 81)


def test_work_that_is_stopped_gives_what_was_reached():
    targets = draw(sequences(60))
    steps = []
    measured = measure(
        {MODEL: esm1b()},
        targets,
        tokens_per_pass=64,
        on_step=steps.append,
        stopped=lambda: len(steps) == 3,
    )
    assert 0 < len(measured.targets) == sum(steps) < len(targets)
    assert len(measured.answers[MODEL].nats) == len(measured.targets)


def test_the_function_is_not_hidden_by_the_module_of_its_name():
    assert callable(mlx_esm_kernels.evaluate)
