"""Folders of transformers load, sharded or not; traps of their config.json are stepped around."""

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_files import (
    ESM1B_CONFIG,
    SIZES,
    random_model,
    write_hugging_face,
)
from random_models import parameters, same

from mlx_esm_kernels import ESM1B, load_model
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.weights import WeightsError
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

GOLDEN = Path(__file__).parents[1] / "golden"
TABLE, OUTPUT = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
FC1 = "esm.encoder.layer.0.intermediate.dense.weight"


@pytest.fixture
def model():
    return random_model(ESM1B_CONFIG)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "esm1b"


def test_a_folder_that_transformers_wrote_gives_its_logits_and_contacts():
    model = load_model(GOLDEN / "hugging_face")
    assert model.alphabet == ESM1B
    expected = np.load(GOLDEN / "hugging_face_outputs.npz")
    out = model(mx.array(expected["tokens"]), return_contacts=True)
    real = expected["tokens"] != 1
    np.testing.assert_allclose(np.array(out["logits"])[real], expected["logits"][real], atol=2e-5)
    np.testing.assert_allclose(np.array(out["contacts"]), expected["contacts"], atol=2e-6)


def test_a_folder_gives_the_model_and_its_config(folder, model):
    loaded = load_model(write_hugging_face(folder, model))
    assert same(loaded, model)
    assert loaded.config == ESM1B_CONFIG


def test_what_config_json_leaves_out_has_the_defaults_of_transformers(folder):
    model = random_model(ESM1Config(1, 8, 16, 2, max_positions=1024))

    def change(config, tensors):
        for name in ("layer_norm_eps", "token_dropout", "max_position_embeddings", "pad_token_id"):
            del config[name]

    config = load_model(write_hugging_face(folder, model, change)).config
    assert (config.layer_norm_eps, config.token_dropout) == (1e-12, False)
    assert config.max_positions == 1024


def test_a_model_without_layer_norm_before_and_contacts_loads(folder):
    model = random_model(ESM1Config(1, 8, 16, 2, max_positions=9, emb_layer_norm_before=False))
    loaded = load_model(write_hugging_face(folder, model))
    assert same(loaded, model)
    assert not loaded.config.contact_head


def test_layer_norms_may_have_their_older_names(folder, model):
    def change(config, tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            older = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            tensors[older.replace("LayerNorm.bias", "LayerNorm.beta")] = tensors.pop(name)

    assert same(load_model(write_hugging_face(folder, model, change)), model)


def test_copies_of_tied_weights_and_old_buffers_are_left_aside(folder, model):
    def change(config, tensors):
        tensors[OUTPUT] = tensors[TABLE]
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"]
        tensors["esm.embeddings.position_ids"] = mx.zeros((1, 26))
        tensors["esm.pooler.dense.weight"] = mx.zeros((8, 8))

    assert same(load_model(write_hugging_face(folder, model, change)), model)


def shard(folder, model):
    """model.safetensors in two files with an index."""
    tensors = {name_in_transformers(name): p for name, p in parameters(model).items()}
    names = sorted(tensors)
    files = {n: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        part = {name: tensors[name] for name in names if files[name] == file}
        mx.save_safetensors(str(folder / file), part)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return files


def test_shards_are_put_together(folder, model):
    write_hugging_face(folder, model)
    shard(folder, model)
    assert same(load_model(folder), model)


def test_bad_shards_are_refused_with_a_sentence(folder, model):
    write_hugging_face(folder, model)
    files = shard(folder, model)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {**files, "more": files[TABLE]}}))
    with pytest.raises(WeightsError, match=r"promises more in model-0000\d.* does not have it"):
        load_model(folder)
    index.write_text(json.dumps({"weight_map": {**files, FC1: "../elsewhere.safetensors"}}))
    with pytest.raises(WeightsError, match=r"\.\./elsewhere\.safetensors, which is not a"):
        load_model(folder)
    index.write_text(json.dumps({"weight_map": {**files, FC1: "gone.safetensors"}}))
    with pytest.raises(WeightsError, match=r"There is no weights file .*gone\.safetensors"):
        load_model(folder)
    index.write_text("{}")
    with pytest.raises(WeightsError, match="must say in weight_map which file has each tensor"):
        load_model(folder)


def test_pytorch_model_bin_loads_and_is_not_trusted(folder, model, tmp_path):
    torch = pytest.importorskip("torch")
    write_hugging_face(folder, model)
    (folder / "model.safetensors").unlink()
    state = {
        name_in_transformers(name): torch.from_numpy(np.array(p))
        for name, p in parameters(model).items()
    }
    position_ids = torch.arange(26)[None]
    torch.save({**state, "esm.embeddings.position_ids": position_ids}, folder / "pytorch_model.bin")
    assert same(load_model(folder), model)

    class Command:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'trapped'}",))

    torch.save({**state, "x": Command()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"is refused: it asks for \w+\.system"):
        load_model(folder)
    assert not (tmp_path / "trapped").exists()
    torch.save([1], folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="must hold tensors by name; got a list"):
        load_model(folder)


def test_the_alphabet_is_that_of_vocab_txt(folder, model):
    write_hugging_face(folder, model)
    tokens = list(ESM1B.tokens)
    (folder / "vocab.txt").write_text("\n".join(tokens))
    assert load_model(folder).alphabet == ESM1B
    tokens[4], tokens[5] = tokens[5], tokens[4]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    assert load_model(folder).alphabet.tokens == tuple(tokens)
    (folder / "vocab.txt").write_text("\n".join(tokens[:-1]))
    with pytest.raises(WeightsError, match=r"vocabulary that cannot be used: .*<mask>"):
        load_model(folder)


def with_config(**changes):
    return lambda config, tensors: config.update(changes)


def with_tensor(name, change):
    return lambda config, tensors: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_config(model_type="bert"), "has a model of type 'bert'; this package has"),
        (with_config(hidden_act="relu"), "hidden_act must be 'gelu', as in ESM; got 'relu'"),
        (with_config(is_folding_model=True), "is ESMFold .is_folding_model."),
        (with_config(vocab_size=34), "vocab_size must be 33, as in its alphabet; got 34"),
        (with_config(mask_token_id=31), "mask_token_id must be 32"),
        (with_config(num_attention_heads=3), "config.json that cannot be used: .*num_heads"),
        (with_config(hidden_size="wide"), "config.json that cannot be used: .*embed_dim"),
        (with_config(layer_norm_eps=0), "config.json that cannot be used: .*layer_norm_eps"),
        (with_config(max_position_embeddings=None), "cannot be used: .*max_positions"),
        (with_config(num_hidden_layers=3), r"it lacks esm.encoder.layer.2.* and 13 more"),
        (with_config(num_hidden_layers=10**8), "tensors for 100000000 layers"),
        (
            with_config(hidden_size=10**9),
            r"word_embeddings.weight must have shape \(33, 10",
        ),
        (with_config(intermediate_size=8), r"intermediate.dense.weight must have shape \(8, 8\)"),
        (lambda _, tensors: tensors.pop(FC1), f"it lacks {FC1}"),
        (lambda _, tensors: tensors.update(x=mx.ones(1)), "it has also x"),
        (with_tensor(FC1, lambda p: p[:-1]), f"{FC1} must have shape"),
        (with_tensor(FC1, lambda p: p.astype(mx.int32)), f"{FC1} must be one of F32.* got I32"),
        (with_tensor(FC1, lambda p: p / 0), f"{FC1} has numbers that are NaN or infinite"),
        (
            lambda _, tensors: tensors.update({OUTPUT: tensors[TABLE] + 1}),
            f"{OUTPUT} and {TABLE} must be the same numbers",
        ),
        (lambda _, tensors: tensors.clear(), "holds no weights: expected model.safetensors or"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_with_a_sentence(folder, model, change, sentence):
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_model(write_hugging_face(folder, model, change))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "cannot be read"), ("[]", "must be a json object"), ("[" * 100_000, "cannot be read")],
)
def test_a_broken_config_json_is_refused_with_a_sentence(folder, model, text, sentence):
    write_hugging_face(folder, model)
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=rf"config\.json {sentence}"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"is a folder without config\.json"):
        load_model(folder)


def test_the_weights_in_a_folder_stand_for_it(folder, model):
    write_hugging_face(folder, model)
    assert same(load_model(folder / "model.safetensors"), model)


def test_a_safetensors_file_alone_says_what_is_missing(folder, tmp_path):
    model = random_model(ESM1Config(**SIZES, max_positions=24))
    file = write_hugging_face(folder, model) / "model.safetensors"
    with pytest.raises(WeightsError, match=r"do not say how many .* with config\.json beside"):
        load_model(file.rename(tmp_path / "model.safetensors"))
