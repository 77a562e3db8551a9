"""Files of ESM-2 against fair-esm and transformers, which wrote them with random weights.

These need the extra "oracle".
"""

import argparse
import json

import mlx.core as mx
import numpy as np
import pytest
from random_models import parameters
from test_oracle import (
    TOLERANCE,
    distances,
    proteins,
    random_parameters,
    run_ours,
    run_theirs,
    run_transformers,
    tokens_of,
)

from mlx_esm_kernels import load_model
from mlx_esm_kernels.ops.angles import rotary_frequencies

torch = pytest.importorskip("torch")
esm = pytest.importorskip("esm")

# layers, width, heads: heads of 16, 24, 32, 64 and 128.
SIZES = [(3, 64, 4), (2, 72, 3), (2, 64, 2), (1, 128, 2), (1, 128, 1)]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def random_fair_esm(sizes, token_dropout=True):
    layers, width, heads = sizes
    model = esm.ESM2(layers, width, heads, token_dropout=token_dropout)
    return random_parameters(model, model.embed_tokens.weight.data)


def write(path, model, dtype=torch.float32):
    """NAME.pt and its contact regression as fair-esm's ESM-2 is released."""
    state = {name: p.to(dtype) for name, p in model.state_dict().items()}
    regression = {name: state.pop(name) for name in list(state) if name.startswith("contact_head")}
    prefixed = {
        ("encoder." if name.startswith("lm_head") else "encoder.sentence_encoder.") + name: p
        for name, p in state.items()
    }
    arguments = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    torch.save({"cfg": {"model": arguments}, "model": prefixed}, path)
    torch.save({"model": regression}, path.with_name(f"{path.stem}-contact-regression.pt"))
    return path


def opened_by_fair_esm(path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        model, alphabet = esm.pretrained.load_model_and_alphabet_local(str(path))
    return model.eval(), tokens_of(alphabet, proteins())


@every_size
@pytest.mark.parametrize("token_dropout", [True, False])
def test_a_file_of_fair_esm_gives_its_logits_every_layer_and_contacts(
    tmp_path, sizes, token_dropout
):
    path = write(tmp_path / "esm2_t1.pt", random_fair_esm(sizes, token_dropout))
    theirs, tokens = opened_by_fair_esm(path)
    truth = run_theirs(theirs, tokens, sizes[0])
    model = load_model(path)
    assert model.config.token_dropout is token_dropout
    assert model.config.max_positions == 1024
    actual = run_ours(model, tokens)
    assert actual[2].shape == truth[2].shape
    assert max(distances(actual, truth, (tokens != 1).numpy())) < TOLERANCE


@every_size
def test_frequencies_that_float16_has_rounded_are_those_of_fair_esm(tmp_path, sizes):
    """As in the released files. Computed anew they would be far off at this length."""
    theirs = random_fair_esm(sizes)
    for layer in theirs.layers:
        buffer = layer.self_attn.rot_emb.inv_freq
        buffer.copy_(buffer.half().float())
        found = rotary_frequencies(sizes[1] // sizes[2], rounded_to=mx.float16)
        assert np.array_equal(np.array(found), buffer.numpy())
    path = write(tmp_path / "esm2_t.pt", theirs)
    theirs, _ = opened_by_fair_esm(path)
    tokens = tokens_of(theirs.alphabet, proteins(longest=600)[:2])
    truth = run_theirs(theirs, tokens, sizes[0])
    model = load_model(path)
    assert model.config.frequency_dtype == "float16"
    assert max(distances(run_ours(model, tokens), truth, (tokens != 1).numpy())) < TOLERANCE


@pytest.mark.parametrize("with_regression", [True, False])
def test_a_state_dict_of_fair_esm_alone_gives_its_logits(tmp_path, with_regression):
    theirs = random_fair_esm((2, 72, 3))
    state = theirs.state_dict()
    if not with_regression:  # the frequencies tell the heads, too
        state = {name: p for name, p in state.items() if not name.startswith("contact_head")}
    torch.save(state, tmp_path / "a.pt")
    tokens = tokens_of(theirs.alphabet, proteins())
    logits, _, _ = run_theirs(theirs, tokens, 2)
    model = load_model(tmp_path / "a.pt")
    assert model.config.contact_head is with_regression
    ours = np.array(model(mx.array(tokens.numpy()))["logits"])
    assert np.abs(ours - logits)[(tokens != 1).numpy()].max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_file_in_half_precision_keeps_it(tmp_path, dtype):
    path = write(tmp_path / "esm2_t3.pt", random_fair_esm((3, 64, 4)), getattr(torch, dtype))
    found = {
        p.dtype for n, p in parameters(load_model(path)).items() if not n.startswith("contact")
    }
    assert found == {getattr(mx, dtype)}


def random_transformers(sizes, **switches):
    transformers = pytest.importorskip("transformers")
    layers, width, heads = sizes
    config = transformers.EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        attn_implementation="eager",
        **{
            "layer_norm_eps": 1e-5,
            "token_dropout": True,
            "emb_layer_norm_before": False,
            **switches,
        },
    )
    model = transformers.EsmForMaskedLM(config)
    return random_parameters(model, model.esm.embeddings.word_embeddings.weight.data)


def assert_as_transformers(folder, theirs):
    tokens = tokens_of(esm.Alphabet.from_architecture("ESM-1b"), proteins())
    truth = run_transformers(theirs, tokens)
    actual = run_ours(load_model(folder), tokens)
    assert max(distances(actual, truth, (tokens != 1).numpy())) < TOLERANCE


@every_size
def test_a_folder_of_transformers_gives_its_logits_every_layer_and_contacts(tmp_path, sizes):
    theirs = random_transformers(sizes)
    theirs.save_pretrained(tmp_path)
    assert_as_transformers(tmp_path, theirs)


@pytest.mark.parametrize(
    "switches",
    [{"emb_layer_norm_before": True}, {"token_dropout": False}, {"layer_norm_eps": 1e-3}],
    ids=str,
)
def test_what_config_json_says_otherwise_is_honoured(tmp_path, switches):
    theirs = random_transformers((2, 64, 4), **switches)
    theirs.save_pretrained(tmp_path)
    assert_as_transformers(tmp_path, theirs)


def test_a_sharded_folder_and_one_with_a_bin_give_the_same(tmp_path):
    theirs = random_transformers((3, 64, 4))
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    assert_as_transformers(tmp_path / "shards", theirs)
    theirs.save_pretrained(tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    assert_as_transformers(tmp_path / "bin", theirs)


def test_a_folder_of_older_transformers_has_a_table_that_it_does_not_use(tmp_path):
    """As the files of the Hub: frequencies in each layer, positions that nothing reads."""
    theirs = random_transformers((2, 64, 4))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {n: p for n, p in theirs.state_dict().items() if not n.endswith("inv_freq")}
    rounded = torch.tensor(np.array(rotary_frequencies(16, rounded_to=mx.float16)))
    for i in range(2):
        state[f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq"] = rounded
    state["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    state["esm.embeddings.position_embeddings.weight"] = torch.randn(1026, 64)
    torch.save(state, tmp_path / "pytorch_model.bin")
    theirs = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert_as_transformers(tmp_path, theirs)
    (tmp_path / "config.json").unlink()  # frequencies say that it is no ESM-1b
    assert_as_transformers(tmp_path / "pytorch_model.bin", theirs)


def test_embeddings_of_an_esm_model_are_those_of_transformers(tmp_path):
    theirs = random_transformers((2, 64, 4)).esm
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["EsmModel"]
    tokens = tokens_of(esm.Alphabet.from_architecture("ESM-1b"), proteins())
    real = (tokens != 1).numpy()
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=(tokens != 1).long()).last_hidden_state.numpy()
    model = load_model(tmp_path)
    out = model(mx.array(tokens.numpy()), repr_layers=[2])
    assert "logits" not in out
    assert np.abs(np.array(out["representations"][2]) - expected)[real].max() < TOLERANCE
