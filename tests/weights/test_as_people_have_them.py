"""Weights as they are found on disks: wrapped, renamed, with other heads, or no weights at all."""

import contextlib
import gzip
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoint_files import (
    ESM1_CONFIG,
    ESM1B_CONFIG,
    fair_esm_parts,
    random_model,
    write_fair_esm,
    write_first_mlx_esm,
    write_hugging_face,
)
from hypothesis import given
from hypothesis import strategies as st
from random_models import parameters, same

from mlx_esm_kernels import ESM1, PRESETS, embed, load_model, pseudo_perplexity, save_weights
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.system.errors import UserError
from mlx_esm_kernels.weights import WeightsError
from mlx_esm_kernels.weights.first_mlx_esm import first_mlx_esm_config
from mlx_esm_kernels.weights.names import without_prefix
from mlx_esm_kernels.weights.opened import WeightsWarning

FORMATS = ("ours", "fair-esm", "Hugging Face", "the first mlx-esm")


@pytest.fixture
def model():
    return random_model(ESM1B_CONFIG)


def embedding_of(model):
    return np.array(next(embed(model, ["MKTAYIAK"])).mean[model.config.num_layers])


def assert_embeds_as(loaded, model):
    np.testing.assert_allclose(embedding_of(loaded), embedding_of(model), atol=1e-6)


# Prefixes


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "_orig_mod.module.", "net.a.b."])
def test_what_wraps_a_model_of_fair_esm_is_taken_off(tmp_path, model, wrapper):
    pytest.importorskip("torch")

    def wrap(data, regression):
        data["model"] = {wrapper + name: p for name, p in data["model"].items()}

    assert same(load_model(write_fair_esm(tmp_path / "a.pt", model, wrap)), model)


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "_orig_mod.", "lit.model."])
@pytest.mark.parametrize("base", [False, True])
def test_what_wraps_a_model_of_transformers_is_taken_off(tmp_path, model, wrapper, base):
    """base: EsmModel, whose names lack the esm. in front."""

    def wrap(config, tensors):
        for name in list(tensors):
            p = tensors.pop(name)
            if not base or name.startswith("esm."):
                tensors[wrapper + (name.removeprefix("esm.") if base else name)] = p

    loaded = load_model(write_hugging_face(tmp_path / "hf", model, wrap))
    assert_embeds_as(loaded, model)
    assert loaded.config.language_head is not base
    assert loaded.config.contact_head


@given(
    st.lists(st.sampled_from(["module", "model", "x"]), max_size=3),
    st.sets(st.sampled_from(["lm_head.bias", "layers.0.fc1.weight", "emb_layer_norm.weight"])),
)
def test_taking_off_a_prefix_undoes_putting_it_on(wrappers, names):
    state = dict.fromkeys((*names, "embed_tokens.weight"), 0)
    wrapper = "".join(f"{part}." for part in wrappers)
    wrapped = {wrapper + name: value for name, value in state.items()}
    assert without_prefix(wrapped, ("embed_tokens.weight",)) == state


# Buffers, and other heads


def test_buffers_of_whole_numbers_are_left_aside(tmp_path, model):
    def add(config, tensors):
        tensors["esm.embeddings.position_ids"] = mx.arange(26)[None]
        tensors["esm.embeddings.num_batches_tracked"] = mx.array(3)

    assert same(load_model(write_hugging_face(tmp_path / "hf", model, add)), model)


@pytest.mark.parametrize("head", ["classifier.dense.weight", "qa_outputs.bias", "my.own.head"])
def test_a_model_with_another_head_embeds_and_says_that_it_cannot_do_more(tmp_path, model, head):
    def change(config, tensors):
        for name in [name for name in tensors if name.startswith("lm_head")]:
            del tensors[name]
        tensors[head] = mx.ones((2, 8))

    folder = write_hugging_face(tmp_path / "hf", model, change)
    with pytest.warns(WeightsWarning, match=f"{head} left aside: a head that this model"):
        loaded = load_model(folder)
    assert_embeds_as(loaded, model)
    assert "logits" not in loaded(mx.array([[0, 5, 2]]))
    with pytest.raises(UserError, match="has no language head, so it gives embeddings alone"):
        pseudo_perplexity(loaded, "MKTAY")
    save_weights(tmp_path / "ours.safetensors", loaded)
    assert_embeds_as(load_model(tmp_path / "ours.safetensors"), model)


# The content tells, not the name


def write(kind, path, model):
    """A file of some format at `path`; what it must give when it is loaded."""
    if kind == "ours":
        save_weights(path, model)
    elif kind == "fair-esm":
        pytest.importorskip("torch")
        write_fair_esm(path.with_name("x.pt"), random_model(ESM1_CONFIG)).rename(path)
        regression = path.with_name("x-contact-regression.pt")
        regression.rename(path.with_name(f"{path.stem}-contact-regression.pt"))
        return random_model(ESM1_CONFIG)
    elif kind == "the first mlx-esm":
        model = random_model(first_mlx_esm_config(**{**SIZES, "num_heads": 4}))
        write_first_mlx_esm(path.with_name("x.npz"), model).rename(path)
    else:
        write_hugging_face(path.parent / "hf", model)
        (path.parent / "hf" / "model.safetensors").rename(path)
    return model


SIZES = {"num_layers": 2, "embed_dim": 8, "ffn_dim": 16, "num_heads": 2}


@pytest.mark.parametrize("suffix", ["", ".pt", ".safetensors", ".npz", ".bin", ".ckpt", ".txt"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_may_have_any_name(tmp_path, model, kind, suffix):
    path = tmp_path / f"called{suffix}"
    expected = write(kind, path, model)
    assert same(load_model(path), expected)


@pytest.mark.parametrize("config", [ESM1B_CONFIG, ESM1_CONFIG], ids=["ESM-1b", "ESM-1"])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_alone_is_read_where_its_shapes_say_all(tmp_path, config, key):
    torch = pytest.importorskip("torch")
    model = random_model(config)
    data, regression = fair_esm_parts(model)
    state = {**data["model"], **regression["model"]}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "a.pt")
    assert same(load_model(tmp_path / "a.pt"), model)


def test_a_state_dict_of_transformers_alone_is_read(tmp_path, model):
    torch = pytest.importorskip("torch")
    tensors = {}
    write_hugging_face(tmp_path / "hf", model, lambda config, found: tensors.update(found))
    torch.save({n: torch.from_numpy(np.array(p)) for n, p in tensors.items()}, tmp_path / "a.pt")
    assert same(load_model(tmp_path / "a.pt"), model)


def test_the_folder_of_a_run_stands_for_its_weights(tmp_path, model):
    save_weights(tmp_path / "weights.safetensors", model)
    assert same(load_model(tmp_path), model)


# What is none of it is called what it is


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; get it once more"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull|Git LFS"),
        (b"<!DOCTYPE html><html>", "a page .HTML or XML., as a download that failed leaves"),
        (b'{"error": "not found"}', "JSON text, not weights"),
        (b">sp|P1\nMKT\n", "it is FASTA"),
        (b"GGUF\3\0\0\0", "GGUF, weights of llama.cpp"),
        (b"\x89HDF\r\n\x1a\n", "HDF5, weights of Keras or TensorFlow"),
        (gzip.compress(b"weights"), "compressed by gzip. Unpack it first"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["a.pt", "a.safetensors", "hf/model.safetensors", "hf/pytorch_model.bin"]
)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, model, content, sentence, name):
    if name.startswith("hf"):
        write_hugging_face(tmp_path / "hf", model)
        (tmp_path / "hf" / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    path = tmp_path / name
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_model(path.parent if name.startswith("hf") else path)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["base_model.model.esm.encoder.lora_A.weight"], "an adapter .LoRA. without its base"),
        (["trunk.blocks.0.weight", "esm.embeddings.word_embeddings.weight"], "it is ESMFold"),
        (["esm.embeddings.word_embeddings.weight", "esm.a.SCB"], "it is quantised weights"),
        (["layers.0.row_self_attention.layer.k_proj.bias"], "it is an MSA Transformer"),
        (["encoder.gvp_encoder.node.weight"], "it is an ESM-IF model"),
        (["transformer.blocks.0.attn.layernorm_qkv.0.weight"], "it is ESM C or ESM3"),
        (["bert.embeddings.token_type_embeddings.weight"], "a model of the BERT family"),
        (["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"], "T5"),
        (["conv.weight"], "it has no table of tokens; it holds conv.weight"),
    ],
)  # fmt: skip
def test_tensors_of_another_model_are_called_what_they_are(tmp_path, names, sentence):
    mx.save_safetensors(str(tmp_path / "a.safetensors"), {name: mx.ones((2, 2)) for name in names})
    with pytest.raises(WeightsError, match=sentence):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "without config.json, so no model of transformers; it is empty"),
        (["notes.txt"], "without config.json.*; it holds notes.txt"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter .LoRA., not a model"),
    ],
)
def test_a_folder_that_is_no_model_says_so(tmp_path, names, sentence):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(WeightsError, match=sentence):
        load_model(tmp_path)


def test_weights_of_tensorflow_alone_say_so(tmp_path, model):
    folder = write_hugging_face(tmp_path, model)
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(WeightsError, match=r"weights of TensorFlow alone .tf_model\.h5."):
        load_model(folder)


def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, model):
    """For the superuser all may be read, so that opening fails as it does for others."""
    save_weights(tmp_path / "a.pt", model)
    opening = Path.open

    def refuse(path, *arguments, **named):
        if path.name == "a.pt":
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"a\.pt cannot be read: Permission denied\.$"):
        load_model(tmp_path / "a.pt")


# Names


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("esm1b_t33_650M_UR50S.pt", "The released model is called esm1b_t33_650M_UR50S here"),
        ("models/esm1v_t33_650M_UR90S_3.pt", "is called esm1v_t33_650M_UR90S_3 here"),
        ("esm1b_t33_650M_UR50D", "Did you mean the released model esm1b_t33_650M_UR50S"),
        ("esm2_t6_8M_UR50S", "Did you mean the released model esm2_t6_8M_UR50D"),
        ("esm2_t6_8M", "Did you mean the released model esm2_t6_8M_UR50D?"),
        ("esm1_t34_670M", "esm1_t34_670M_UR50S or esm1_t34_670M_UR50D or esm1_t34_670M_UR100?"),
        ("x" * 5000, "There is no weights file 'xxx"),
        ("a\0b", "There is no weights file"),
    ],
)
def test_a_name_that_means_no_file_says_what_it_may_mean(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=sentence):
        load_model(name)


def test_a_file_that_is_called_like_a_released_model_is_used_and_said(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    save_weights("esm1b_t33_650M_UR50S", model)
    with pytest.warns(WeightsWarning, match="is a file here, which is used in place of the rel"):
        assert same(load_model("esm1b_t33_650M_UR50S"), model)


# The Python side


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_dtype_may_be_given_by_its_name(tmp_path, model, dtype):
    save_weights(tmp_path / "a", model)
    loaded = load_model(tmp_path / "a", dtype)
    assert {p.dtype for p in parameters(loaded).values()} == {getattr(mx, dtype)}


@pytest.mark.parametrize("dtype", ["half", mx.int8, mx.int64, np.float32, 16])
def test_another_dtype_is_refused_with_the_three(tmp_path, model, dtype):
    save_weights(tmp_path / "a", model)
    with pytest.raises(ValueError, match=r"dtype must be float32, float16, bfloat16 .*; got"):
        load_model(tmp_path / "a", dtype)


def test_a_model_that_is_no_path_is_refused_with_a_sentence():
    with pytest.raises(TypeError, match="expected a path or the name of a released model; got a"):
        load_model(3)


def test_a_new_model_can_be_used_by_another_thread():
    model = ESM1(PRESETS["small"])
    with ThreadPoolExecutor(1) as pool:
        assert np.isfinite(pool.submit(embedding_of, model).result()).all()


# Any bytes


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A small file of each format."""
    folder = tmp_path_factory.mktemp("originals")
    model = random_model(ESM1Config(1, 8, 8, 2, max_positions=8, contact_head=True))
    paths = {"ours": folder / "a", "npz": folder / "b.npz"}
    save_weights(paths["ours"], model)
    write_first_mlx_esm(
        paths["npz"], random_model(first_mlx_esm_config(**{**SIZES, "num_heads": 4}))
    )
    write_hugging_face(folder / "hf", model)
    paths["Hugging Face"] = folder / "hf" / "model.safetensors"
    with contextlib.suppress(ImportError):
        paths["fair-esm"] = write_fair_esm(folder / "c.pt", model)
    return [path.read_bytes() for path in paths.values()]


@given(data=st.data())
def test_any_bytes_end_in_a_model_or_one_sentence(tmp_path_factory, originals, data):
    content = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if kind == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[max(at, 1) :]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=9))
        elif len(content) > 9:
            del content[at : at + 8]
    folder = tmp_path_factory.mktemp("any")
    path = folder / f"x{data.draw(st.sampled_from(['', '.pt', '.npz', '.safetensors', '.bin']))}"
    path.write_bytes(content)
    if data.draw(st.booleans()):
        (folder / "config.json").write_text(json.dumps({"model_type": "esm"}))
    sentence = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_model(path)
        except WeightsError as error:
            sentence = str(error)
    assert sentence == "" or str(folder) in sentence
    assert len(sentence) < len(os.fspath(path)) * 2 + 600
