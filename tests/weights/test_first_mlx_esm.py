"""Weights of the first mlx-esm: its own formulas give the same logits, and its commands work."""

import contextlib
import math

import dnaio
import mlx.core as mx
import numpy as np
import pytest
from checkpoint_files import (
    SIZES,
    random_model,
    write_first_mlx_esm,
)
from click.testing import CliRunner
from random_models import same

from mlx_esm_kernels import load_model
from mlx_esm_kernels.commands import generate, unmask
from mlx_esm_kernels.weights import WeightsError
from mlx_esm_kernels.weights.first_mlx_esm import FIRST_MLX_ESM, first_mlx_esm_config

CONFIG = first_mlx_esm_config(**{**SIZES, "num_heads": 4})
ALPHABET = "%$*-.?ABCDEFGHIKLMNOPQRSTUVWXYZ^"
FC1 = "transformer_layers.layers.0.fc1.weight"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.npz"


def layer_norm(x, weights, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + 1e-12)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def project(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits_by_its_formulas(weights, tokens, heads=4):
    """(L,) tokens of one protein -> (L, 32), in float64, as the first mlx-esm defined it."""
    weights = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}
    table = weights["embed_tokens.weight"]
    width, half = table.shape[1], table.shape[1] // 2
    frequencies = np.exp(-np.arange(half) * math.log(10_000) / (half - 1))
    angles = (np.arange(len(tokens)) + 1)[:, None] * frequencies
    x = table[tokens] + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    erf = np.vectorize(math.erf)
    for i in range(sum(name.endswith("fc1.bias") for name in weights)):
        layer = f"transformer_layers.layers.{i}"
        h = layer_norm(x, weights, f"{layer}.self_attn_layer_norm")
        q, k, v = (
            project(h, weights, f"{layer}.self_attn.{name}_proj")
            .reshape(len(tokens), heads, -1)
            .swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        o = softmax(q @ k.swapaxes(1, 2) / math.sqrt(width // heads)) @ v
        o = o.swapaxes(0, 1).reshape(len(tokens), width)
        x = x + project(o, weights, f"{layer}.self_attn.out_proj")
        h = project(layer_norm(x, weights, f"{layer}.final_layer_norm"), weights, f"{layer}.fc1")
        x = x + project(h * (1 + erf(h / math.sqrt(2))) / 2, weights, f"{layer}.fc2")
    return project(x, weights, "out")


def test_its_alphabet_is_32_characters_by_code_point_with_padding_first():
    assert sorted(ALPHABET) == sorted("^*$?%-.ABCDEFGHIKLMNOPQRSTUVWXYZ")
    assert ALPHABET[0] == "%"
    assert list(ALPHABET[2:]) == sorted(ALPHABET)[2:]
    named = {"%": "<pad>", "^": "<cls>", "*": "<mask>", "$": "<eos>", "?": "<unk>"}
    assert FIRST_MLX_ESM.tokens == tuple(named.get(letter, letter) for letter in ALPHABET)


def test_a_file_gives_the_logits_of_its_formulas(path):
    write_first_mlx_esm(path, random_model(CONFIG))
    model, weights = load_model(path), dict(np.load(path))
    for seq in ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ", "M*K**TW", "A"):
        tokens = np.array([ALPHABET.index(letter) for letter in f"^{seq}$"])
        expected = logits_by_its_formulas(weights, tokens)
        actual = np.array(model(mx.array(tokens[None]))["logits"][0])
        np.testing.assert_allclose(actual, expected, atol=1e-4)
        padded = np.concatenate([tokens, np.zeros(5, dtype=int)])
        actual = np.array(model(mx.array(padded[None]))["logits"][0, : len(tokens)])
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_a_file_gives_the_model_and_its_alphabet_whatever_its_name(path, tmp_path):
    model = random_model(CONFIG)
    write_first_mlx_esm(path, model)
    loaded = load_model(path.rename(tmp_path / "weights"))
    assert same(loaded, model)
    assert (loaded.config, loaded.alphabet) == (CONFIG, FIRST_MLX_ESM)


def test_generate_and_unmask_take_its_weights(path):
    write_first_mlx_esm(path, random_model(CONFIG))
    arguments = ["--weights-file", str(path), "--length", "300", "-o", str(path.with_name("a"))]
    result = CliRunner().invoke(generate.command, arguments)
    assert result.exit_code == 0, result.output
    (record,) = dnaio.open(path.with_name("a"), fileformat="fasta")
    assert len(record.sequence) == 300  # it stopped at 256
    assert set(record.sequence) <= set("ACDEFGHIKLMNPQRSTVWY")
    arguments = ["--weights-file", str(path), "--seq", "MK*TW**A", "--max-prob-only"]
    result = CliRunner().invoke(unmask.command, arguments)
    assert result.exit_code == 0, result.output
    sequence = result.stdout.splitlines()[1]
    assert (sequence[:2], sequence[3:5], sequence[7:]) == ("MK", "TW", "A")


def without(name):
    return lambda arrays: arrays.pop(name)


def with_array(name, change):
    return lambda arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            without("embed_tokens.weight"),
            "no model of the first mlx-esm: it must",
        ),
        (lambda arrays: arrays.clear(), "holds no model of the first mlx-esm"),
        (with_array(FC1, lambda a: a[0, 0]), "two matrices; it has embed_tokens.weight, out.bias"),
        (with_array("embed_tokens.weight", lambda a: a[:-1]), "must have 32 rows, .* got 31"),
        (without("out.bias"), "it lacks out.bias"),
        (lambda arrays: arrays.update(x=np.ones(1)), "it has also x"),
        (with_array("out.weight", lambda a: a.T), r"out.weight must have shape \(32, 8\); got \(8"),
        (
            with_array("out.bias", lambda a: a.astype(int)),
            "out.bias must be one of .*int64",
        ),
        (with_array("out.bias", lambda a: a.astype(object)), "is no .npz file, or a damaged one"),
        (with_array("out.bias", lambda a: a + np.inf), "out.bias has numbers that are NaN or inf"),
        (
            lambda arrays: arrays.update(
                {n: a[..., :6] for n, a in arrays.items() if n == "embed_tokens.weight"}
            ),
            "sizes that cannot be used: .*multiple of num_heads",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_sentence(path, change, sentence):
    write_first_mlx_esm(path, random_model(CONFIG), change)
    with pytest.raises(WeightsError, match=sentence):
        load_model(path)


def test_a_file_cut_short_or_damaged_is_refused(path):
    content = write_first_mlx_esm(path, random_model(CONFIG)).read_bytes()
    for end in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=r"is (no \.npz file, or a damaged one|empty)"):
            load_model(path)
    for at in range(0, len(content), len(content) // 150):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        with contextlib.suppress(WeightsError):  # a changed number is no error
            load_model(path)
