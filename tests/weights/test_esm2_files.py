"""ESM-2 as people have it: fair-esm's files, folders of transformers, tensors alone."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_files import (
    ESM2_CONFIG,
    fair_esm_parts,
    frequencies,
    random_model,
    write_fair_esm,
    write_hugging_face,
)
from random_models import parameters, same

from mlx_esm_kernels import ESM1B, load_model, save_weights
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.ops.angles import rotary_frequencies
from mlx_esm_kernels.weights import WeightsError
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

GOLDEN = Path(__file__).parents[1] / "golden"
FREQUENCIES = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
TABLE, OUTPUT = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"


@pytest.fixture
def model():
    return random_model(ESM2_CONFIG)


def assert_golden(model, name):
    assert model.alphabet == ESM1B
    assert model.config.rotary_positions
    assert model.config.max_positions == 1024
    expected = np.load(GOLDEN / f"{name}_outputs.npz")
    out = model(mx.array(expected["tokens"]), return_contacts=True)
    real = expected["tokens"] != 1
    np.testing.assert_allclose(np.array(out["logits"])[real], expected["logits"][real], atol=2e-5)
    np.testing.assert_allclose(np.array(out["contacts"]), expected["contacts"], atol=2e-6)


# Folders of transformers


def test_a_folder_that_transformers_wrote_gives_its_logits_and_contacts():
    assert_golden(load_model(GOLDEN / "hugging_face_esm2"), "hugging_face_esm2")


def test_a_folder_gives_the_model_and_its_config(tmp_path, model):
    loaded = load_model(write_hugging_face(tmp_path / "hf", model))
    assert same(loaded, model)
    assert loaded.config == ESM2_CONFIG


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_what_files_of_esm2_have_beside_parameters_is_left_aside(tmp_path, model, wrapper):
    def change(config, tensors):
        for layer in "01*":  # the star is one of transformers 5
            tensors[FREQUENCIES.format(layer)] = mx.array(frequencies(ESM2_CONFIG))
        tensors["esm.rotary_embeddings.inv_freq"] = mx.array(frequencies(ESM2_CONFIG))
        tensors["esm.embeddings.position_ids"] = mx.arange(26)[None]
        tensors["esm.embeddings.position_embeddings.weight"] = mx.ones((26, 8))
        tensors[OUTPUT] = tensors[TABLE]
        for name in list(tensors):
            tensors[wrapper + name] = tensors.pop(name)

    folder = write_hugging_face(tmp_path / "hf", model, change)
    assert same(load_model(folder), model)
    (folder / "config.json").unlink()
    assert same(load_model(folder / "model.safetensors"), model)


@pytest.mark.parametrize("rows", [5, None, 10**9])
def test_how_many_positions_config_json_has_means_nothing(tmp_path, model, rows):
    def change(config, tensors):
        config["max_position_embeddings"] = rows

    assert load_model(write_hugging_face(tmp_path / "hf", model, change)).config == ESM2_CONFIG


def with_config(**changes):
    return lambda config, tensors: config.update(changes)


def with_tensor(name, value):
    return lambda config, tensors: tensors.update({name: mx.array(value)})


ROUNDED = frequencies(ESM2_CONFIG).astype(np.float16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_config(rope_theta=5e5), "rope_theta must be 10000.0, as in ESM; got 500000.0"),
        (with_config(rope_parameters={"rope_theta": 5e5}), "rope_theta must be 10000.0"),
        (with_config(position_embedding_type="relative_key"), "or 'rotary', as in ESM-2; got 're"),
        (with_config(position_embedding_type="absolute"), "it lacks .*position_embeddings.weight"),
        (with_config(num_attention_heads=8), "cannot be used: .*heads of an even width"),
        (with_config(is_folding_model=True), "is ESMFold .*; this package has ESM-1, .* and ESM-2"),
        (with_config(quantization_config={"bits": 4}), "has quantised weights; give those in fl"),
        (with_tensor(FREQUENCIES.format(1), [1.0, 0.5]), r"must be 10000\^\(-2i / 4\).*; got 1, 0"),
        (with_tensor(FREQUENCIES.format(1), [1.0, np.nan]), r"must be 10000\^\(-2i / 4\)"),
        (with_tensor(FREQUENCIES.format(1), [1.0]), r"inv_freq must have shape \(2,\); got \(1,\)"),
        (
            with_tensor("esm.encoder.layer.0.output.dense.weight_scale", [1.0]),
            "has quantised weights; this package has",
        ),
    ],
)
def test_a_folder_that_is_no_esm2_is_refused_with_a_sentence(tmp_path, model, change, sentence):
    with pytest.raises(WeightsError, match=sentence):
        load_model(write_hugging_face(tmp_path / "hf", model, change))


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rounded_to", ["float16", "bfloat16"])
def test_frequencies_that_training_has_rounded_are_those_of_the_model(
    tmp_path, model, rounded_to, stored
):
    """As float16 has in the released files, whatever they are stored in."""
    if rounded_to != stored != "float32":
        pytest.skip("it would round them once more")
    rounded = rotary_frequencies(4, rounded_to=getattr(mx, rounded_to))

    def change(config, tensors):
        for layer in range(ESM2_CONFIG.num_layers):
            tensors[FREQUENCIES.format(layer)] = rounded.astype(getattr(mx, stored))

    loaded = load_model(write_hugging_face(tmp_path / "hf", model, change))
    assert same(loaded, model)
    assert loaded.config == dataclasses.replace(ESM2_CONFIG, frequency_dtype=rounded_to)
    save_weights(tmp_path / "ours.safetensors", loaded)
    assert load_model(tmp_path / "ours.safetensors").config == loaded.config


def test_frequencies_that_differ_between_layers_are_refused(tmp_path, model):
    def change(config, tensors):
        tensors[FREQUENCIES.format(0)] = mx.array(frequencies(ESM2_CONFIG))
        tensors[FREQUENCIES.format(1)] = mx.array(ROUNDED)

    with pytest.raises(WeightsError, match="rounded to float16 in some layers and to float32 in o"):
        load_model(write_hugging_face(tmp_path / "hf", model, change))


# fair-esm's files


def test_a_file_that_fair_esm_wrote_gives_its_logits_and_contacts():
    pytest.importorskip("torch")
    assert_golden(load_model(GOLDEN / "fair_esm_2.pt"), "fair_esm_2")


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("token_dropout", [True, False])
@pytest.mark.parametrize("as_dict", [True, False])
def test_fair_esms_file_loads_by_its_cfg(tmp_path, wrapper, token_dropout, as_dict):
    pytest.importorskip("torch")

    def change(data, regression):
        data["model"] = {wrapper + name: p for name, p in data["model"].items()}
        if as_dict:
            data["cfg"]["model"] = vars(data["cfg"]["model"])

    config = ESM1Config.esm2(2, 8, 2, contact_head=True, token_dropout=token_dropout)
    model = random_model(config)
    loaded = load_model(write_fair_esm(tmp_path / "any.pt", model, change))
    assert same(loaded, model)
    assert loaded.config == config


def test_without_its_regression_a_file_has_no_contacts(tmp_path, model):
    pytest.importorskip("torch")
    path = write_fair_esm(tmp_path / "a.pt", model)
    (tmp_path / "a-contact-regression.pt").unlink()
    assert not load_model(path).config.contact_head


def with_cfg(**changes):
    return lambda data, _: vars(data["cfg"]["model"]).update(changes)


def with_entry(name, value):
    def apply(data, _):
        import torch

        data["model"][name] = torch.tensor(value)

    return apply


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data, _: data.update(cfg={"model": 3}), "cfg must be an argparse.Namespace; got i"),
        (lambda data, _: data.update(cfg=None), "cfg must be an argparse.Namespace; got NoneType"),
        (lambda data, _: data.update(model=[]), "model must be tensors by name; got a list"),
        (lambda data, _: data.pop("model"), "is no model of fair-esm: .* got a dict with cfg"),
        (
            lambda data, _: data.update(cfg={"model": argparse.Namespace()}),
            "cfg must say layers, embed_dim, attention_heads, token_dropout",
        ),
        (with_cfg(encoder_layers=3), "it lacks layers.2.fc1.bias, .* and 13 more"),
        (with_cfg(encoder_embed_dim="wide"), "cannot be used: .*embed_dim"),
        (with_cfg(encoder_embed_dim={}), "cannot be used: "),
        (with_cfg(encoder_embed_dim=10**12), r"must have shape \(2500"),
        (with_cfg(encoder_attention_heads=8), "cannot be used: .*heads of an even width"),
        (with_cfg(encoder_attention_heads=1), r"inv_freq must have shape \(4,\); got \(2,\)"),
        (with_cfg(token_dropout="yes"), "token_dropout must be True or False"),
        (
            with_entry("encoder.sentence_encoder.layers.0.self_attn.rot_emb.inv_freq", [1.0, 0.1]),
            r"inv_freq must be 10000\^\(-2i / 4\), as in ESM-2; got 1, 0.1",
        ),
        (with_entry("encoder.lm_head.weight", [[1.0] * 8] * 33), "must be the same numbers"),
        (with_entry("trunk.blocks.0.weight", [1.0]), "is ESMFold; this package has ESM-1, ESM-1b,"),
    ],
)
def test_a_file_of_fair_esm_that_is_no_esm2_is_refused(tmp_path, model, change, sentence):
    pytest.importorskip("torch")
    with pytest.raises(WeightsError, match=sentence):
        load_model(write_fair_esm(tmp_path / "a.pt", model, change))


@pytest.mark.parametrize(
    ("architecture", "what"),
    [("msa_transformer", "it is an MSA Transformer"), ("gvp_transformer", "it is ESM-IF")],
)
def test_fair_esms_other_models_are_called_what_they_are(tmp_path, architecture, what):
    torch = pytest.importorskip("torch")
    data = {"args": argparse.Namespace(arch=architecture), "model": {}}
    torch.save(data, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"{what}; this package has ESM-1, ESM-1b, .* ESM-2"):
        load_model(tmp_path / "a.pt")


class DictConfig:
    """Stands for omegaconf's, in which the files of ESMFold hold their cfg."""


def test_esmfolds_file_is_called_what_it_is(tmp_path, monkeypatch, model):
    torch = pytest.importorskip("torch")
    for name in ("omegaconf", "omegaconf.dictconfig"):
        monkeypatch.setitem(sys.modules, name, sys.modules[__name__])
    monkeypatch.setattr(DictConfig, "__module__", "omegaconf.dictconfig")
    torch.save({"cfg": {"model": DictConfig()}, "model": {}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"asks for omegaconf.* as ESMFold's files do; this pa"):
        load_model(tmp_path / "a.pt")


# Tensors alone


def bare(model, contacts=True, buffers=True):
    data, regression = fair_esm_parts(model)
    state = data["model"] | (regression["model"] if contacts else {})
    return {name: p for name, p in state.items() if buffers or not name.endswith("inv_freq")}


@pytest.mark.parametrize(("contacts", "buffers"), [(True, True), (False, True), (True, False)])
def test_a_state_dict_tells_its_heads_by_frequencies_or_contacts(
    tmp_path, model, contacts, buffers
):
    torch = pytest.importorskip("torch")
    torch.save(bare(model, contacts, buffers), tmp_path / "a.pt")
    loaded = load_model(tmp_path / "a.pt")
    assert loaded.config == ESM1Config.esm2(2, 8, 2, contact_head=contacts)
    assert all(mx.array_equal(p, parameters(model)[name]) for name, p in parameters(loaded).items())


@pytest.mark.parametrize(("width", "heads"), [(320, 20), (480, 20), (640, 20)])
def test_where_nothing_tells_the_heads_those_of_the_released_width_are_taken(
    tmp_path, width, heads
):
    config = ESM1Config.esm2(1, width, heads, ffn_dim=4)
    tensors = {
        name_in_transformers(name): p for name, p in parameters(random_model(config)).items()
    }
    mx.save_safetensors(str(tmp_path / "a.safetensors"), tensors)
    assert load_model(tmp_path / "a.safetensors").config == config


def test_another_width_without_anything_that_tells_the_heads_is_refused(tmp_path):
    model = random_model(ESM1Config.esm2(1, 8, 2))
    folder = write_hugging_face(tmp_path / "hf", model)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="do not say how many attention heads the model has: gi"):
        load_model(folder / "model.safetensors")


def test_esm1b_without_its_table_is_not_taken_for_esm2(tmp_path):
    model = random_model(ESM1Config(1, 8, 16, 2, max_positions=24, contact_head=True))

    def change(config, tensors):
        del tensors["esm.embeddings.position_embeddings.weight"]

    folder = write_hugging_face(tmp_path / "hf", model, change)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no esm\.embeddings\.position_embeddings\.weight"):
        load_model(folder / "model.safetensors")


# Our own


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_file_in_half_precision_keeps_it_and_comes_back_from_our_own(tmp_path, model, dtype):
    model.set_dtype(getattr(mx, dtype))
    loaded = load_model(write_hugging_face(tmp_path / "hf", model))
    assert same(loaded, model)
    save_weights(tmp_path / "ours.safetensors", loaded)
    again = load_model(tmp_path / "ours.safetensors")
    assert same(again, model)
    assert again.config == ESM2_CONFIG


def test_a_classifier_of_esm2_embeds(tmp_path, model):
    def change(config, tensors):
        config["architectures"] = ["EsmForSequenceClassification"]
        for name in [name for name in tensors if name.startswith("lm_head")]:
            del tensors[name]
        tensors["classifier.dense.weight"] = mx.ones((8, 8))

    folder = write_hugging_face(tmp_path / "hf", model, change)
    assert json.loads((folder / "config.json").read_text())["position_embedding_type"] == "rotary"
    with pytest.warns(UserWarning, match=r"classifier\.dense\.weight left aside: a head that"):
        loaded = load_model(folder)
    assert not loaded.config.language_head
