"""Folders for transformers: what is in them, that they come back as they went in, and refusals."""

import dataclasses
import json
import struct

import mlx.core as mx
import pytest
from hypothesis import given
from random_models import esm1, esm1b, esm2, parameters, randomised
from test_hugging_face import GOLDEN
from writable_models import bits, bits_of, writable_models

from mlx_esm_kernels import ESM1B, Alphabet, load_model, save_hugging_face
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.models.low_rank import LowRank, add_low_rank
from mlx_esm_kernels.system.whole_file import OutputError
from mlx_esm_kernels.weights import hugging_face_writing
from mlx_esm_kernels.weights.hugging_face_writing import new_in_transformers

# What transformers' own config.json says that is left to its defaults here.
LEFT_OUT = {
    *("add_cross_attention", "bos_token_id", "esmfold_config", "is_decoder", "rope_theta"),
    *("transformers_version", "use_cache", "vocab_list"),
}
ROTARY = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"


def written(folder, model):
    save_hugging_face(folder, model)
    return folder


def json_of(path):
    return json.loads(path.read_text("utf-8"))


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def stored(folder):
    """All tensors of a folder; two files never have the same one."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found = mx.load(str(path))
        assert not found.keys() & tensors.keys()
        tensors |= found
    return tensors


def test_a_folder_of_transformers_comes_back_as_transformers_wrote_it(tmp_path):
    folder = written(tmp_path / "again", load_model(GOLDEN / "hugging_face"))
    ours, theirs = json_of(folder / "config.json"), json_of(GOLDEN / "hugging_face" / "config.json")
    assert theirs.keys() - ours.keys() == LEFT_OUT
    # Those of the released models, whose dropout is none.
    expected = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    assert ours == {key: theirs[key] for key in ours} | expected
    older = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    tensors = stored(GOLDEN / "hugging_face")
    for old, new in older.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    assert {name: bits(t) for name, t in stored(folder).items()} == {
        name: bits(t) for name, t in tensors.items()
    }


def test_the_tokenizer_has_the_alphabet_and_the_longest_protein(tmp_path):
    folder = written(tmp_path / "esm1b", esm1b(max_positions=40))
    assert (folder / "vocab.txt").read_text("utf-8").splitlines() == list(ESM1B.tokens)
    specials = {f"{name}_token": f"<{name}>" for name in ("cls", "eos", "mask", "pad", "unk")}
    assert json_of(folder / "special_tokens_map.json") == specials
    config = {**specials, "model_max_length": 40, "tokenizer_class": "EsmTokenizer"}
    assert json_of(folder / "tokenizer_config.json") == config
    assert json_of(folder / "config.json")["max_position_embeddings"] == 42
    # Rotary positions have no end.
    folder = written(tmp_path / "esm2", esm2())
    assert "model_max_length" not in json_of(folder / "tokenizer_config.json")


def test_a_rotary_model_is_an_esm_2_with_its_frequencies(tmp_path):
    model = esm2(num_layers=2, embed_dim=16, num_heads=2)
    model.set_dtype(mx.bfloat16)
    folder = written(tmp_path / "esm2", model)
    config, tensors = json_of(folder / "config.json"), stored(folder)
    assert config["position_embedding_type"] == "rotary"
    assert (config["emb_layer_norm_before"], config["token_dropout"]) == (False, True)
    assert config["dtype"] == "bfloat16"
    assert not [name for name in tensors if "position_embeddings" in name]
    for layer in range(2):
        frequencies = tensors.pop(ROTARY.format(layer))
        assert frequencies.dtype == mx.float32  # whatever that of the parameters is
        assert mx.allclose(frequencies, mx.array([1, 0.1, 0.01, 0.001]), rtol=1e-6)
    assert all(tensor.dtype == mx.bfloat16 for tensor in tensors.values())
    assert len(tensors) == len(parameters(model))


@pytest.mark.parametrize("objective", ["mlm", "diffusion", "mixed"])
def test_what_the_weights_were_trained_for_comes_back(tmp_path, objective):
    """And whether they have token dropout, which models of the others have not."""
    model = esm2(objective=objective, token_dropout=objective == "mlm")
    folder = written(tmp_path / "esm2", model)
    config = json_of(folder / "config.json")
    # Released folders do not have the key, and neither has one that would say the same.
    assert config.get("objective") == (None if objective == "mlm" else objective)
    assert config["token_dropout"] is (objective == "mlm")
    found = load_model(folder).config
    assert (found.objective, found.token_dropout) == (objective, objective == "mlm")
    (folder / "config.json").write_text(json.dumps({**config, "objective": ["of", "others"]}))
    assert load_model(folder).config.objective == "mlm"


def test_the_file_of_weights_says_that_its_tensors_are_pytorch_s(tmp_path):
    folder = written(tmp_path / "folder", esm1b())
    assert header_of(folder / "model.safetensors")["__metadata__"] == {"format": "pt"}


@given(writable_models(rotary=False))
def test_a_model_comes_back_bit_for_bit(tmp_path_factory, model):
    folder = written(tmp_path_factory.mktemp("law") / "folder", model)
    loaded = load_model(folder)
    assert (loaded.config, loaded.alphabet) == (model.config, model.alphabet)
    assert bits_of(loaded) == bits_of(model)


@given(writable_models(rotary=True))
def test_a_rotary_model_comes_back_bit_for_bit(tmp_path_factory, model):
    folder = written(tmp_path_factory.mktemp("law") / "folder", model)
    loaded = load_model(folder)
    # How long a protein may be, rotary positions do not say.
    longest = model.config.max_positions
    assert dataclasses.replace(loaded.config, max_positions=longest) == model.config
    assert loaded.alphabet == model.alphabet
    assert bits_of(loaded) == bits_of(model)


def test_an_encoder_alone_is_an_esm_model(tmp_path):
    model = esm1b(language_head=False)
    folder = written(tmp_path / "folder", model)
    assert json_of(folder / "config.json")["architectures"] == ["EsmModel"]
    assert {name.split(".")[0] for name in stored(folder)} == {
        "embeddings",
        "encoder",
        "contact_head",
    }
    loaded = load_model(folder)
    assert loaded.config == model.config
    assert bits_of(loaded) == bits_of(model)


def test_what_transformers_makes_up_is_said():
    sizes = {"num_layers": 1, "embed_dim": 8, "ffn_dim": 16, "num_heads": 2}
    assert new_in_transformers(ESM1Config(**sizes, contact_head=True)) is None
    assert "report contact_head as newly" in new_in_transformers(ESM1Config(**sizes))
    both = new_in_transformers(ESM1Config(**sizes, language_head=False))
    assert "contact_head and pooler as newly" in both
    assert "add_pooling_layer=False" in both


# Shards


@pytest.mark.parametrize("limit", [1, 1000, 4000])
def test_large_weights_are_in_several_files_with_an_index(tmp_path, monkeypatch, limit):
    model = esm1b()
    monkeypatch.setattr(hugging_face_writing, "SHARD_BYTES", limit)
    folder = written(tmp_path / "folder", model)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    count = len(files)
    assert files == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    index = json_of(folder / "model.safetensors.index.json")
    assert set(index["weight_map"].values()) == set(files)
    for file in files:
        named = [name for name, place in index["weight_map"].items() if place == file]
        assert header_of(folder / file)["__metadata__"] == {"format": "pt"}
        tensors = mx.load(str(folder / file))
        assert sorted(named) == sorted(tensors)
        assert sum(t.nbytes for t in tensors.values()) <= limit or len(tensors) == 1
    assert index["metadata"] == {
        "total_parameters": sum(p.size for p in parameters(model).values()),
        "total_size": sum(t.nbytes for t in stored(folder).values()),
    }
    assert bits_of(load_model(folder)) == bits_of(model)


def test_a_limit_that_all_tensors_just_reach_leaves_one_file(tmp_path, monkeypatch):
    model = esm1b()
    size = sum(p.nbytes for p in parameters(model).values())
    monkeypatch.setattr(hugging_face_writing, "SHARD_BYTES", size)
    assert (written(tmp_path / "one", model) / "model.safetensors").exists()
    monkeypatch.setattr(hugging_face_writing, "SHARD_BYTES", size - 1)
    assert (written(tmp_path / "two", model) / "model.safetensors.index.json").exists()


# Whole or not at all


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face_writing, "SHARD_BYTES", 1000)
    calls = []

    def fail(*arguments, **named):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(OutputError, match="folder cannot be written: No space left on device"):
        save_hugging_face(tmp_path / "folder", esm1b())
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_written_over(tmp_path):
    model, folder = esm1b(), tmp_path / "folder"
    folder.mkdir()
    assert bits_of(load_model(written(folder, model))) == bits_of(model)  # it was empty
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match="folder has something in it already"):
        save_hugging_face(folder, esm1b(seed=1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(OutputError, match="it is there already and is no folder"):
        save_hugging_face(folder / "config.json", model)
    with pytest.raises(OutputError, match="there is no folder"):
        save_hugging_face(tmp_path / "missing" / "folder", model)


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is the folder that you are in"):
        save_hugging_face(tmp_path, esm1b())


# What transformers' ESM is not


def with_alphabet(*tokens, **fields):
    alphabet = Alphabet(tokens or ESM1B.tokens, **fields)
    sizes = {"num_layers": 1, "embed_dim": 8, "ffn_dim": 16, "num_heads": 2, "contact_head": True}
    return randomised(ESM1(ESM1Config.of(alphabet, **sizes), alphabet))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (esm1, "model has sinusoidal positions, a scaled embedding, one more key and value in eac"),
        (lambda: esm1b(tied_output=False), "has an output that is not its token table; a .safet"),
        (lambda: esm1b(emb_layer_norm_after=False), "has no LayerNorm after the last layer;"),
        (lambda: esm2(bias_kv=True), "has one more key and value in each attention;"),
        (lambda: esm2(scale_embedding=True), "has a scaled embedding;"),
        (lambda: with_alphabet(append_eos=False), "that do not stand between <cls> and <eos>;"),
        (lambda: with_alphabet("x", *ESM1B.tokens), "contacts and an <eos> that is not token 2;"),
        (lambda: with_alphabet(*ESM1B.tokens, "two words"), "tokens that are no words of a line"),
        (lambda: with_alphabet(*ESM1B.tokens, ""), "tokens that are no words of a line each;"),
    ],
)
def test_a_model_that_transformers_cannot_express_is_refused(tmp_path, model, sentence):
    with pytest.raises(OutputError) as caught:
        save_hugging_face(tmp_path / "folder", model())
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_an_adapter_is_refused(tmp_path):
    model = esm1b()
    add_low_rank(model, LowRank(2, 4.0))
    with pytest.raises(ValueError, match="has an adapter beside its layers"):
        save_hugging_face(tmp_path / "folder", model)
    assert list(tmp_path.iterdir()) == []
