"""A weights file comes back as it went in, is whole or not there, and is refused in a sentence."""

import contextlib
import json
import os
import stat
import struct

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import parameters, same

from mlx_esm_kernels.data.alphabet import ESM1B, ESM1B_TOKENS, Alphabet
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.weights import WeightsError, load_model, native, save_weights

# Of format version 1, which knew ESM-1b and ESM-1v alone.
FIRST_FIELDS = (
    *("num_layers", "embed_dim", "ffn_dim", "num_heads", "max_positions", "vocab_size"),
    *("padding_idx", "mask_idx", "cls_idx", "eos_idx"),
    *("token_dropout", "emb_layer_norm_before", "layer_norm_eps"),
)
CONFIG = ESM1Config(1, 8, 16, 2, max_positions=12, emb_layer_norm_before=False)


@pytest.fixture
def model():
    mx.random.seed(0)
    return ESM1(CONFIG)


@pytest.fixture
def path(tmp_path, model):
    """A weights file that is in order."""
    save_weights(tmp_path / "esm1.safetensors", model)
    return tmp_path / "esm1.safetensors"


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path, change):
    """Apply change(header) to the json header of a file."""
    header, tensors = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_model_comes_back_bit_for_bit_with_its_config_and_alphabet(tmp_path, model, dtype):
    model.set_dtype(dtype)
    path = tmp_path / "esm1.safetensors"
    save_weights(path, model)
    loaded = load_model(path)
    assert same(loaded, model)
    assert loaded.config == CONFIG
    assert loaded.alphabet == ESM1B


def test_the_file_is_a_safetensors_file_with_readable_metadata(path, model):
    save_weights(path, model, metadata={"step": "7"})
    arrays, metadata = mx.load(str(path), return_metadata=True)
    assert arrays.keys() == parameters(model).keys()
    assert metadata["step"] == "7"
    assert metadata["format_version"] == "2"
    assert json.loads(metadata["config"])["embed_dim"] == 8
    assert json.loads(metadata["alphabet"]) == ESM1B.to_dict()


def test_an_alphabet_of_ones_own_comes_back(tmp_path):
    tokens = tuple("J" if token == "." else token for token in ESM1B_TOKENS)
    save_weights(tmp_path / "esm1.safetensors", ESM1(CONFIG, Alphabet(tokens)))
    assert load_model(tmp_path / "esm1.safetensors").alphabet.tokens == tokens


@pytest.mark.parametrize("step", ["save_safetensors", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(path, model, monkeypatch, step):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    model.lm_head.bias += 1
    monkeypatch.setattr(mx if step == "save_safetensors" else os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, model)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_new_file_is_complete_before_it_takes_the_old_ones_place(path, model, monkeypatch):
    replace, seen = os.replace, []

    def watch(source, target):
        seen.append((same(load_model(source), model), same(load_model(target), model)))
        replace(source, target)

    model.lm_head.bias += 1
    monkeypatch.setattr(native.os, "replace", watch)
    save_weights(path, model)
    assert seen == [(True, False)]
    assert same(load_model(path), model)


def test_weights_may_be_saved_over_the_file_they_were_loaded_from(path):
    loaded = load_model(path)
    save_weights(path, loaded)
    assert same(load_model(path), loaded)


def test_a_symbolic_link_is_followed(path, model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "latest.safetensors"
    link.symlink_to(path)
    model.lm_head.bias += 1
    save_weights(link, model)
    assert link.is_symlink()
    assert same(load_model(path), model)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_file_has_the_permissions_of_any_new_file(path, tmp_path):
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_metadata_of_ours_cannot_be_set(tmp_path, model):
    path = tmp_path / "esm1.safetensors"
    with pytest.raises(ValueError, match="metadata may not set config"):
        save_weights(path, model, metadata={"config": "mine"})
    assert not path.exists()


def without(name):
    return lambda header: header["__metadata__"].pop(name)


def with_metadata(name, value):
    return lambda header: header["__metadata__"].update({name: value})


def with_config(**changes):
    config = {**CONFIG.to_dict(), **changes}
    return with_metadata("config", json.dumps(config))


def with_name(old, new):
    return lambda header: header.update({new: header.pop(old)})


def with_tensor(name, **changes):
    return lambda header: header[name].update(changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("config"), "has no config in it: it was not written by mlx-esm-kernels"),
        (without("alphabet"), "has no alphabet in it"),
        (with_metadata("format_version", "4"), "format version 4, this release reads 3: install"),
        (with_config(num_heads=3), "config that cannot be used: .* multiple of num_heads"),
        (with_config(depth=3), "config that cannot be used: .* unknown fields: depth"),
        (with_metadata("config", "[]"), "config that cannot be used"),
        (with_metadata("config", "{"), "config that cannot be used"),
        (with_metadata("alphabet", '{"tokens": ["A"]}'), "alphabet that cannot be used"),
        (with_config(mask_idx=31), "mask_idx is 31 in the config and 32 in the alphabet"),
        (with_config(num_layers=2), "does not fit its config: it lacks layers.1.+ and 13 more"),
        (with_config(num_layers=10**9), "tensors for 1000000000 layers"),
        (with_config(ffn_dim=8), r"layers.0.fc1.weight must have shape \(8, 8\); got \(16, 8\)"),
        (with_config(emb_layer_norm_before=True), "lacks emb_layer_norm_before"),
        (with_name("lm_head.bias", "lm_head.bais"), "it lacks lm_head.bias"),
        (with_tensor("lm_head.bias", dtype="I32"), "lm_head.bias must be one of F32.+got I32"),
        (with_tensor("lm_head.bias", shape=[34]), "damaged: the size of lm_head.bias belies"),
        (with_tensor("lm_head.bias", shape=[-33]), "no safetensors file, or a damaged one"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_sentence(path, change, sentence):
    rewrite(path, change)
    with pytest.raises(WeightsError, match=f"^{path} .*{sentence}|^{path}: .*{sentence}"):
        load_model(path)


def test_a_file_of_the_first_format_still_loads(path, model):
    def as_version_1(header):
        metadata = header["__metadata__"]
        config, alphabet = json.loads(metadata["config"]), json.loads(metadata["alphabet"])
        first = {field: config[field] for field in FIRST_FIELDS}
        metadata["config"] = json.dumps(first)
        metadata["alphabet"] = json.dumps({"tokens": alphabet["tokens"]})
        metadata["format_version"] = "1"

    rewrite(path, as_version_1)
    loaded = load_model(path)
    assert same(loaded, model)
    assert (loaded.config, loaded.alphabet) == (CONFIG, ESM1B)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_any_precision_can_be_asked_for(path, model, dtype):
    loaded = load_model(path, dtype)
    model.set_dtype(dtype)
    assert same(loaded, model)


def test_numbers_that_a_precision_cannot_hold_are_refused_and_so_are_nan(path, model):
    model.layers[0].fc1.bias = model.layers[0].fc1.bias + 1e5
    save_weights(path, model)
    with pytest.raises(WeightsError, match=r"layers.0.fc1.bias has numbers that .*float16 cannot"):
        load_model(path, mx.float16)
    model.layers[0].fc1.bias = model.layers[0].fc1.bias + float("nan")
    save_weights(path, model)
    with pytest.raises(WeightsError, match=r"damaged: layers.0.fc1.bias has numbers that are NaN"):
        load_model(path)


def test_a_tensor_too_many_is_refused(tmp_path, path):
    arrays, metadata = mx.load(str(path), return_metadata=True)
    mx.save_safetensors(str(tmp_path / "more.safetensors"), {**arrays, "x": mx.ones(1)}, metadata)
    with pytest.raises(WeightsError, match="it has also x"):
        load_model(tmp_path / "more.safetensors")


def test_no_file_a_folder_and_a_short_file_are_each_called_what_they_are(path):
    with pytest.raises(WeightsError, match=r"There is no weights file .*nowhere"):
        load_model(path.with_name("nowhere"))
    with pytest.raises(WeightsError, match=r"is a folder without config.json"):
        load_model(path.parent)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"cut short: it has {len(data) - 1} bytes of"):
        load_model(path)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: struct.pack("<Q", len(b)) + b))
def test_any_other_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"is no (safetensors file|model that)|is empty"):
        load_model(path)


@given(st.data())
def test_a_damaged_header_never_ends_in_another_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_weights(path, ESM1(CONFIG))
    content = bytearray(path.read_bytes())
    end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end - 1))
        content[at] = data.draw(st.sampled_from(b'0123456789-,:"{}[]x\x00\xff'))
    path.write_bytes(content)
    with contextlib.suppress(WeightsError):  # a change may also be harmless
        load_model(path)


def test_a_model_is_never_in_memory_twice_while_it_is_loaded(tmp_path):
    config = ESM1Config(num_layers=12, embed_dim=64, ffn_dim=256, num_heads=4)
    save_weights(tmp_path / "w.safetensors", ESM1(config))
    size = (tmp_path / "w.safetensors").stat().st_size
    mx.clear_cache()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    model = load_model(tmp_path / "w.safetensors")
    assert size <= mx.get_peak_memory() - held < 1.3 * size
    del model
