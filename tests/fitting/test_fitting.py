"""A head finds what is there to be found, the same every time, and knows where it belongs."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from random_models import esm1b, parameters, randomised

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.csv_table import CsvTable
from mlx_esm_kernels.data.labelled import read_labelled
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.splitting import split_by_hash
from mlx_esm_kernels.fitting import features as features_module
from mlx_esm_kernels.fitting.adapting import AdaptedPredictor
from mlx_esm_kernels.fitting.features import FeatureMaker, make_features
from mlx_esm_kernels.fitting.fitting import fit_head, known_targets
from mlx_esm_kernels.fitting.head import Head, HeadSpec, as_prediction
from mlx_esm_kernels.fitting.head_folder import Base, HeadError, SavedHead, load_head, save_head
from mlx_esm_kernels.fitting.optimising import Pace
from mlx_esm_kernels.fitting.predicting import predict
from mlx_esm_kernels.inference.embedding import embed
from mlx_esm_kernels.system.errors import UserError
from mlx_esm_kernels.system.interrupt import StopOnSignal

RNG = np.random.default_rng(0)
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")
SEQUENCES = ["".join(RNG.choice(LETTERS, RNG.integers(8, 30))) for _ in range(150)]
HYDROPHOBIC = "AILMFVWY"
PACE = Pace(learning_rate=0.02, max_epochs=60, seed=1)


def labelled(targets, task="regression", level="protein", sequences=SEQUENCES):
    rows = [[text, target] for text, target in zip(sequences, targets, strict=True)]
    return read_labelled(
        CsvTable("t.csv", ["sequence", "y"], rows),
        sequence_col="sequence",
        target_col="y",
        alphabet=ESM1B,
        task=task,
        level=level,
    )


def parts_of(given):
    return split_by_hash(given.proteins.hashes, valid_fraction=0.15, test_fraction=0.2)


def share(text):
    return sum(letter in HYDROPHOBIC for letter in text) / len(text)


SHARES = labelled([str(share(text)) for text in SEQUENCES])
KINDS = labelled(["in" if share(text) > 0.4 else "out" for text in SEQUENCES], "classification")
PER_RESIDUE = labelled(
    ["".join("H" if letter in HYDROPHOBIC else "P" for letter in text) for text in SEQUENCES],
    "classification",
    "residue",
)


def of_test(given, fitted):
    rows = known_targets(given, parts_of(given))["test"]
    return given.targets[rows], fitted.prediction.values[rows]


def wide():
    """Wide enough for a direction for each of the 20 residues, and some for positions."""
    return esm1b(embed_dim=96)


def test_a_share_of_residues_is_found_in_the_embeddings_of_a_random_model():
    fitted = fit_head(wide(), SHARES, parts_of(SHARES), layers=(0,), pace=PACE)
    targets, values = of_test(SHARES, fitted)
    assert np.square(values - targets).mean() < 0.15 * targets.var()


def test_classes_of_proteins_are_found():
    fitted = fit_head(wide(), KINDS, parts_of(KINDS), layers=(0,), pace=PACE)
    targets, values = of_test(KINDS, fitted)
    assert (targets == values).mean() > 0.85
    assert fitted.prediction.probabilities.sum(axis=1) == pytest.approx(1)


def test_classes_of_residues_are_found():
    fitted = fit_head(wide(), PER_RESIDUE, parts_of(PER_RESIDUE), layers=(0,), pace=PACE)
    targets, values = of_test(PER_RESIDUE, fitted)
    assert (targets == values).mean() > 0.97


def test_a_hidden_layer_finds_what_is_not_linear():
    # With fewer features than there are residues no plane parts every group of them.
    rows = [" ".join(str(float(letter in "ADFHKM")) for letter in text) for text in SEQUENCES]
    given = labelled(rows, "regression", "residue")
    errors = {}
    for hidden in (None, 32):
        fitted = fit_head(esm1b(), given, parts_of(given), layers=(0,), hidden=hidden, pace=PACE)
        targets, values = of_test(given, fitted)
        errors[hidden] = np.square(values - targets).mean()
    assert errors[32] < 0.7 * errors[None]


def test_the_model_stays_as_it_is_and_the_same_seed_gives_the_same_head():
    model = esm1b()
    before = dict(parameters(model))
    given, heads = (PER_RESIDUE, parts_of(PER_RESIDUE)), []
    for seed in (1, 1, 2):
        pace = Pace(learning_rate=0.01, max_epochs=2, seed=seed)
        heads.append(fit_head(model, *given, layers=(0,), hidden=4, pace=pace).head)
    assert all(mx.array_equal(before[name], now) for name, now in parameters(model).items())
    first, second, other = (parameters(head) for head in heads)
    assert all(mx.array_equal(first[name], second[name]) for name in first)
    assert not mx.array_equal(first["out.weight"], other["out.weight"])


def test_the_best_epoch_is_kept_and_training_ends_when_none_is_better():
    pace = Pace(learning_rate=0.02, max_epochs=60, patience=3)
    fitted = fit_head(esm1b(), SHARES, parts_of(SHARES), pace=pace)
    losses = fitted.history.valid_losses
    assert fitted.history.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == fitted.history.best_epoch + 3
    rows = known_targets(SHARES, parts_of(SHARES))["valid"]
    error = np.square(fitted.prediction.values[rows] - SHARES.targets[rows]).mean()
    assert error / fitted.spec.target_scale**2 == pytest.approx(min(losses), rel=1e-3)


def test_a_signal_ends_training_with_the_best_epoch_until_then():
    stop = StopOnSignal()

    def on_epoch(history):
        if len(history.valid_losses) == 2:
            stop.received = 2

    fitted = fit_head(esm1b(), SHARES, parts_of(SHARES), stop=stop, on_epoch=on_epoch)
    assert (len(fitted.history.valid_losses), fitted.history.stopped_by) == (2, 2)


def test_a_loss_that_is_no_number_is_a_sentence():
    pace = Pace(learning_rate=1e38, max_epochs=5)
    with pytest.raises(UserError, match=r"no longer a number in epoch .* lower --learning-rate"):
        fit_head(esm1b(), SHARES, parts_of(SHARES), hidden=4, pace=pace)


# Features


def test_features_are_the_embeddings_and_duplicates_share_theirs():
    proteins = Proteins.from_sequences([*SEQUENCES[:5], SEQUENCES[1]])
    maker = FeatureMaker(esm1b(), layers=(0, 2), level="residue")
    found = make_features(maker, proteins)
    assert len(found.values) == sum(len(text) for text in SEQUENCES[:5])
    for place, wanted in enumerate(
        embed(esm1b(), [*SEQUENCES[:5], SEQUENCES[1]], layers=(0, 2), include=("per-residue",))
    ):
        both = np.concatenate([np.array(wanted.per_residue[layer]) for layer in (0, 2)], axis=1)
        np.testing.assert_allclose(found.of(np.array([place])), both, rtol=1e-4, atol=1e-4)


def test_features_that_would_fill_the_memory_are_on_the_disk(monkeypatch):
    proteins = Proteins.from_sequences(SEQUENCES[:5])
    maker = FeatureMaker(esm1b(), layers=(-1,), level="residue")
    in_memory = make_features(maker, proteins)
    monkeypatch.setattr(features_module, "MOST_IN_MEMORY", 0)
    on_disk = make_features(maker, proteins)
    assert isinstance(on_disk.values, np.memmap)
    assert (on_disk.values == in_memory.values).all()


def test_a_change_of_one_residue_is_seen_beside_the_wild_type():
    wild = SEQUENCES[0]
    other = "C" if wild[3] != "C" else "A"
    proteins = Proteins.from_sequences([wild[:3] + other + wild[4:], wild])
    found = make_features(
        FeatureMaker(esm1b(), layers=(-1,), level="protein", wild_type=wild), proteins
    )
    variant, before = (
        np.array(one.per_residue[2])
        for one in embed(esm1b(), [wild[:3] + other + wild[4:], wild], include=("per-residue",))
    )
    wanted = np.concatenate([variant[3], before[3]]) - np.tile(before.mean(axis=0), 2)
    np.testing.assert_allclose(found.of(np.array([0]))[0], wanted, rtol=1e-4, atol=1e-4)
    assert not found.of(np.array([1])).any()


@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [
        (SEQUENCES[0][:-1], "has .* residues and the wild type"),
        (SEQUENCES[0][::-1], "differs from"),
    ],
)
def test_what_is_no_variant_of_the_wild_type_is_refused(sequence, sentence):
    maker = FeatureMaker(esm1b(), layers=(-1,), level="protein", wild_type=SEQUENCES[0])
    with pytest.raises(UserError, match=sentence):
        make_features(maker, Proteins.from_sequences([sequence]))


# A model that trains with its head


def unfreeze_last_norm(model):
    model.freeze()
    model.emb_layer_norm_after.unfreeze()


@pytest.mark.parametrize("given", [SHARES, PER_RESIDUE], ids=["shares", "residues"])
def test_what_a_model_lets_train_trains_with_the_head_and_all_else_stays(given):
    model = esm1b()
    before = dict(parameters(model))
    fitted = fit_head(
        model,
        given,
        parts_of(given),
        pace=Pace(0.01, max_epochs=3),
        adapt=unfreeze_last_norm,
        adapt_pace=Pace(0.01, max_epochs=8, seed=1),
    )
    changed = {n for n, now in parameters(model).items() if not mx.array_equal(before[n], now)}
    assert changed == {"emb_layer_norm_after.weight", "emb_layer_norm_after.bias"}
    assert min(fitted.adapted.valid_losses) < min(fitted.history.valid_losses)
    # The path that trains and the one that predicts are one function.
    both = AdaptedPredictor(fitted.head, fitted.spec, model, given.proteins, tokens_per_batch=100)
    outputs = [np.array(both.outputs(some)) for some in both.groups(np.arange(len(given)))]
    found = as_prediction(np.concatenate(outputs), fitted.spec)
    if given.classes:
        assert found.probabilities == pytest.approx(fitted.prediction.probabilities, abs=1e-4)
    else:
        assert found.values == pytest.approx(fitted.prediction.values, abs=1e-4)


def test_variants_and_windows_give_the_same_outputs_where_a_model_trains():
    wild = (SEQUENCES[0] * 5)[:60]  # the model takes 38
    texts = [wild[:i] + "W" + wild[i + 1 : -1] + "C" for i in range(0, 59, 7)] + [wild]
    proteins = Proteins.from_sequences(texts)
    options = {"layers": (0, 2), "level": "protein", "long": "window"}
    model = esm1b()
    for wild_type in ("", wild):
        maker = FeatureMaker(model, **options, wild_type=wild_type)
        spec = HeadSpec(
            "regression", "protein", (), (0, 2), "window", maker.inputs, wild_type=wild_type
        )
        head = randomised(Head(spec))
        wanted = head(mx.array(make_features(maker, proteins).of(np.arange(len(texts)))))
        found = AdaptedPredictor(head, spec, model, proteins).outputs(np.arange(len(texts)))
        np.testing.assert_allclose(np.array(found), np.array(wanted), rtol=1e-3, atol=1e-3)


# The folder


@pytest.fixture
def saved(tmp_path):
    weights = tmp_path / "w.safetensors"
    save_weights(weights, esm1b())
    fitted = fit_head(esm1b(), KINDS, parts_of(KINDS), layers=(0, -1), pace=Pace(max_epochs=2))
    folder = tmp_path / "head"
    folder.mkdir()
    base = Base.of(esm1b(), str(weights))
    save_head(folder, SavedHead(fitted.head, fitted.spec, base, "seq"))
    return folder, fitted


def test_a_head_predicts_the_same_from_its_folder(saved):
    folder, fitted = saved
    again = load_head(folder)
    assert (again.spec, again.sequence_col) == (fitted.spec, "seq")
    found = list(predict(again.head, again.spec, again.open_model(), KINDS.proteins))
    values = np.concatenate([one.probabilities for one in found])
    np.testing.assert_allclose(values, fitted.prediction.probabilities, atol=1e-5)


def test_other_weights_are_refused_and_the_same_ones_elsewhere_are_not(saved, tmp_path):
    folder, _ = saved
    save_weights(tmp_path / "other.safetensors", esm1b(seed=1))
    save_weights(tmp_path / "w.safetensors", esm1b(seed=1))
    save_weights(tmp_path / "moved.safetensors", esm1b())
    again = load_head(folder)
    for weights in (None, str(tmp_path / "other.safetensors")):
        with pytest.raises(HeadError, match="is not what this head was fitted to"):
            again.open_model(weights)
    again.open_model(str(tmp_path / "moved.safetensors"))


def spoil(folder, **fields):
    config = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "head.json").unlink(), "is no folder of a head"),
        (lambda folder: (folder / "head.json").write_text("{"), "head.json is damaged"),
        (lambda folder: spoil(folder, format_version=9), "version 9, this release reads 1 and 2"),
        (lambda folder: spoil(folder, inputs=7), "is damaged"),
        (lambda folder: spoil(folder, base={}), "is damaged"),
        (lambda folder: (folder / "head.safetensors").unlink(), "head.safetensors cannot be read"),
        (
            lambda folder: (folder / "head.safetensors").write_bytes(b"x"),
            "head.safetensors cannot be read",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(saved, damage, sentence):
    folder, _ = saved
    damage(folder)
    with pytest.raises(HeadError, match=sentence):
        load_head(folder)


def test_a_new_head_says_the_mean():
    fitted = fit_head(
        esm1b(), SHARES, parts_of(SHARES), pace=Pace(learning_rate=1e-12, max_epochs=1)
    )
    rows = known_targets(SHARES, parts_of(SHARES))["train"]
    assert fitted.prediction.values == pytest.approx(SHARES.targets[rows].mean(), abs=1e-6)
    assert math.isclose(fitted.history.train_losses[0], 1, rel_tol=1e-3)
