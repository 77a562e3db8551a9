"""fair-esm's .pt files load as fair-esm loads them; others are refused in a sentence.

These tests need torch, which opens the files.
"""

import functools
import os
import pickle
import sys
import zipfile
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
)
from random_models import parameters, same

from mlx_esm_kernels import ESM1_ALPHABET, ESM1B, load_model
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.weights import WeightsError

torch = pytest.importorskip("torch")

GOLDEN = Path(__file__).parents[1] / "golden"
TABLE = "encoder.sentence_encoder.embed_tokens.weight"
FC1 = "encoder.sentence_encoder.layers.0.fc1.weight"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "esm1b.pt"


@pytest.mark.parametrize("name", ["1", "1b"])
def test_a_file_that_fair_esm_wrote_gives_its_logits_and_contacts(name):
    model = load_model(GOLDEN / f"fair_esm_{name}.pt")
    expected = np.load(GOLDEN / f"fair_esm_{name}_outputs.npz")
    out = model(mx.array(expected["tokens"]), return_contacts=True)
    real = expected["tokens"] != 1
    np.testing.assert_allclose(np.array(out["logits"])[real], expected["logits"][real], atol=2e-5)
    np.testing.assert_allclose(np.array(out["contacts"]), expected["contacts"], atol=2e-6)


@pytest.mark.parametrize(
    "config",
    [
        ESM1B_CONFIG,
        ESM1_CONFIG,
        ESM1Config(1, 8, 16, 2, max_positions=9, emb_layer_norm_before=False),
        ESM1Config(1, 8, 16, 2, max_positions=9, token_dropout=False),
    ],
    ids=["ESM-1b", "ESM-1", "ESM-1v", "no token dropout"],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_each_architecture_loads_from_both_of_torchs_formats(path, config, new_format):
    model = random_model(config)
    data, regression = fair_esm_parts(model)
    torch.save(data, path, _use_new_zipfile_serialization=new_format)
    if config.contact_head:
        torch.save(regression, path.with_name("esm1b-contact-regression.pt"))
    loaded = load_model(path)
    assert same(loaded, model)
    assert loaded.config == config
    assert loaded.alphabet == (ESM1_ALPHABET if config.bias_kv else ESM1B)


def test_the_content_and_not_the_name_tells_a_file_of_torch(path, tmp_path):
    model = random_model(ESM1Config(1, 8, 16, 2, max_positions=9))
    for number, new_format in enumerate((True, False)):
        other = tmp_path / f"checkpoint_{number}"
        torch.save(fair_esm_parts(model)[0], other, _use_new_zipfile_serialization=new_format)
        assert same(load_model(other), model)


def test_the_row_of_the_mask_is_cleared_as_token_dropout_wants_it(path):
    def change(data, regression):
        data["model"][TABLE][32] = 7.0  # and with it lm_head.weight, which is the same memory

    model = random_model(ESM1B_CONFIG)
    assert same(load_model(write_fair_esm(path, model, change)), model)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.float16, mx.float16),
        (torch.bfloat16, mx.bfloat16),
        (torch.float64, mx.float32),
    ],
)
def test_each_precision_is_kept_and_double_becomes_single(path, theirs, ours):
    def change(data, regression):
        data["model"] = {name: p.to(theirs) for name, p in data["model"].items()}

    model = random_model(ESM1B_CONFIG)
    loaded = load_model(write_fair_esm(path, model, change))
    model.set_dtype(ours)
    for name, expected in parameters(model).items():
        if not name.startswith("contact_head"):
            actual = parameters(loaded)[name]
            assert actual.dtype == ours
            assert mx.array_equal(actual, expected), name


def test_without_its_regression_a_model_loads_and_refuses_contacts(path):
    write_fair_esm(path, random_model(ESM1B_CONFIG))
    path.with_name("esm1b-contact-regression.pt").unlink()
    model = load_model(path)
    assert not model.config.contact_head
    with pytest.raises(ValueError, match="no contact regression"):
        model(mx.array([[0, 5, 2]]), return_contacts=True)


def test_an_output_without_bias_has_a_bias_of_zero(path):
    def change(data, regression):
        data["args"].final_bias = False
        del data["model"]["decoder.embed_out_bias"]

    model = random_model(ESM1_CONFIG)
    assert same(load_model(write_fair_esm(path, model, change)), model)


class Command:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("where", ["args", "model", "regression"])
def test_a_file_that_would_run_a_command_is_refused_and_does_not(tmp_path, path, new_format, where):
    trap = tmp_path / "trapped"
    data, regression = fair_esm_parts(random_model(ESM1B_CONFIG))
    target = regression if where == "regression" else data
    target["model" if where == "regression" else where] = Command(os.system, f"touch {trap}")
    torch.save(data, path, _use_new_zipfile_serialization=new_format)
    torch.save(
        regression,
        path.with_name("esm1b-contact-regression.pt"),
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(WeightsError, match=r"is refused: it asks for \w+\.system, and weights may"):
        load_model(path)
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_pickle_that_would_run_a_command_is_refused_and_does_not(tmp_path, path, protocol):
    trap = tmp_path / "trapped"
    path.write_bytes(pickle.dumps(Command(os.system, f"touch {trap}"), protocol=protocol))
    with pytest.raises(WeightsError, match=r"is no file of torch.save, or a damaged one|refused"):
        load_model(path)
    assert not trap.exists()


def test_what_the_user_has_allowed_torch_is_not_allowed_here_and_is_so_again_after(path):
    data, _ = fair_esm_parts(random_model(ESM1B_CONFIG))
    data["more"] = functools.partial(len)
    torch.save(data, path)
    with torch.serialization.safe_globals([functools.partial, len]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(WeightsError, match=r"asks for functools\.partial"):
            load_model(path)
        assert set(torch.serialization.get_safe_globals()) == before


def with_args(**changes):
    return lambda data, regression: vars(data["args"]).update(changes)


def with_tensor(name, change):
    def apply(data, regression):
        data["model"][name] = change(data["model"][name])

    return apply


def replace(data_or_regression, key, value):
    def apply(data, regression):
        (data if data_or_regression == "data" else regression)[key] = value

    return apply


def without(name):
    return lambda data, regression: data["model"].pop(name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_args(arch="msa_transformer"), "'msa_transformer', it is an MSA Tr"),
        (with_args(layers=3), "it lacks layers.2.fc1.bias, .* and 13 more"),
        (with_args(layers=10**9), r"it has \d+ tensors for 1000000000 layers"),
        (with_args(embed_dim=10**9), r"embed_tokens.weight must have shape \(33, 1000000000\)"),
        (with_args(ffn_embed_dim=8), r"layers.0.fc1.weight must have shape \(8, 8\); got"),
        (with_args(max_positions=30), r"embed_positions.weight must have shape \(32, 8\); got"),
        (with_args(attention_heads=3), "arguments that cannot be used: .*multiple of num_heads"),
        (with_args(layers="two"), "num_layers must be an integer"),
        (lambda data, _: vars(data["args"]).pop("layers"), "args must say layers"),
        (
            replace("data", "args", {"arch": "roberta_large"}),
            "must be an argparse.Namespace",
        ),
        (replace("data", "model", [1, 2]), "model must be tensors by name; got a list"),
        (lambda data, _: data.pop("model"), "is no model of fair-esm: .* got a dict with args"),
        (without(FC1), "it lacks layers.0.fc1.weight"),
        (without(TABLE), "it lacks embed_tokens.weight"),
        (lambda data, _: data["model"].update(x=torch.ones(1)), "it has also x"),
        (with_tensor(FC1, lambda p: "a word"), "layers.0.fc1.weight must be a tensor; got str"),
        (with_tensor(FC1, lambda p: p.int()), "layers.0.fc1.weight must be a dense .*torch.int32"),
        (with_tensor(FC1, lambda p: p.to_sparse()), "must be a dense tensor .*torch.sparse_coo"),
        (with_tensor(FC1, lambda p: p[:-1]), r"must have shape \(16, 8\); got \(15, 8\)"),
        (
            with_tensor(FC1, lambda p: p * float("nan")),
            "fc1.weight has numbers that are NaN",
        ),
        (with_tensor(TABLE, lambda p: p[:-1]), r"must have shape \(33, C\), .*got \(32, 8\)"),
        (
            with_tensor(TABLE, lambda p: p + 1),
            "lm_head.weight and embed_tokens.weight",
        ),
        (
            with_tensor(FC1, lambda p: torch.ones(1).expand(10**6, 10**6)),
            "the size of layers.0.fc1.weight belies its shape",
        ),
        (replace("regression", "model", {"weight": torch.ones(1)}), "is no contact regression"),
        (
            lambda _, regression: regression["model"].update(
                {"contact_head.regression.weight": torch.ones(1, 5)}
            ),
            r"contact_head.regression.weight must have shape \(1, 4\); got \(1, 5\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_sentence(path, change, sentence):
    write_fair_esm(path, random_model(ESM1B_CONFIG), change)
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_model(path)
    assert str(path.parent / "esm1b") in str(caught.value)


def test_a_file_cut_short_anywhere_is_refused(path):
    content = (GOLDEN / "fair_esm_1b.pt").read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(
            WeightsError, match=r"esm1b\.pt is (no file of torch\.save, or a|empty)"
        ):
            load_model(path)


def test_a_damaged_byte_never_ends_in_another_error(path):
    content = (GOLDEN / "fair_esm_1b.pt").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(content), 150):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        try:
            load_model(path)  # a changed number is no error
        except WeightsError:
            refused += 1
    assert refused > 20


def test_a_zip_of_something_else_and_no_file_are_called_what_they_are(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"is no file of torch\.save"):
        load_model(path)
    with pytest.raises(WeightsError, match=r"There is no weights file .*nowhere\.pt\.$"):
        load_model(path.with_name("nowhere.pt"))


def test_without_torch_it_says_what_to_install(path, monkeypatch):
    write_fair_esm(path, random_model(ESM1B_CONFIG))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"pip install 'mlx-esm-kernels\[convert\]'"):
        load_model(path)
