"""Adapters on disk: what was saved comes back, and what is not for these weights is refused."""

import json
import math
import re
import shutil

import mlx.core as mx
import numpy as np
import pytest
from adapters import MLX_LM_CONFIG, adapted, write_mlx_lm, write_peft
from mlx.utils import tree_flatten
from random_models import esm1b, parameters, same

from mlx_esm_kernels import load_model, save_weights
from mlx_esm_kernels.models.fingerprint import fingerprint_of_base
from mlx_esm_kernels.models.low_rank import LowRank, adapter_arrays, low_rank_layers
from mlx_esm_kernels.system.whole_file import OutputError
from mlx_esm_kernels.weights import WeightsError, adapter, load_fused
from mlx_esm_kernels.weights.adapter import BaseWeights, load_adapter, save_adapter
from mlx_esm_kernels.weights.opened import WeightsWarning

LOW_RANK = LowRank(3, 2.5, 0.1, keys=("self_attn.q_proj", "fc2", "lm_head.dense"), num_layers=1)
TOKENS = mx.array([[0, 20, 15, 11, 5, 19, 2]])
CONFIG, ARRAYS = "adapter_config.json", "adapters.safetensors"


def save(folder, low_rank=LOW_RANK, seed=0):
    model = esm1b()
    base = BaseWeights("esm1b.pt", fingerprint_of_base(model))
    save_adapter(folder, adapted(model, low_rank, seed), low_rank, base)
    return model


def logits(model):
    return np.array(model(TOKENS)["logits"].astype(mx.float32))


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(folder, model=None):
    model = esm1b() if model is None else model
    before = parameters(model)
    with pytest.raises(WeightsError) as caught:
        load_adapter(folder, model)
    assert not low_rank_layers(model)
    assert parameters(model).keys() == before.keys()
    return str(caught.value)


def change(folder, edit):
    """Change an adapter of ours, in both places that its config is in."""
    config = json.loads((folder / CONFIG).read_text())
    arrays = mx.load(str(folder / ARRAYS))
    edit(config, arrays)
    (folder / CONFIG).write_text(json.dumps(config))
    metadata = {"adapter_config": json.dumps(config)}
    mx.save_safetensors(str(folder / ARRAYS), arrays, metadata=metadata)
    return folder


def test_what_was_saved_comes_back(folder):
    model = esm1b()
    assert load_adapter(folder, model) == LOW_RANK
    assert same(model, save(folder.parent / "again"))
    trained = dict(tree_flatten(model.trainable_parameters()))
    assert trained.keys() == adapter_arrays(model).keys()


def test_the_folder_of_a_run_stands_for_the_adapter_in_it(tmp_path):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "adapters")
    assert load_adapter(tmp_path / "run", esm1b()) == LOW_RANK
    with pytest.raises(WeightsError, match=r"run has an adapter \(LoRA\), not a model"):
        load_model(tmp_path / "run")


def test_all_layers_are_all_of_them_however_their_number_is_written(tmp_path):
    whole = LowRank(2, 1.0)
    save(tmp_path / "a", whole)
    for number in (-1, 2):
        change(tmp_path / "a", lambda config, _, number=number: config.update(num_layers=number))
        assert load_adapter(tmp_path / "a", esm1b()) == whole


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_the_base_is_known_in_the_dtype_that_it_is_stored_in_and_in_float32(tmp_path, dtype):
    model = esm1b()
    model.set_dtype(dtype)
    base = BaseWeights("half", fingerprint_of_base(model))
    save_weights(tmp_path / "w.safetensors", model)
    save_adapter(tmp_path / "a", adapted(model, LOW_RANK), LOW_RANK, base)
    for wanted in (None, mx.float32, mx.bfloat16):
        loaded = load_model(tmp_path / "w.safetensors", wanted, adapter=tmp_path / "a")
        assert loaded.embed_tokens.weight.dtype == (wanted or dtype)
        assert loaded.lm_head.dense.linear.weight.dtype == (wanted or dtype)
        assert {array.dtype for array in adapter_arrays(loaded).values()} == {mx.float32}


def test_an_adapter_written_anew_takes_the_place_of_the_old_one(folder):
    (folder / "notes.txt").write_text("mine")
    newer = save(folder, seed=1)
    model = esm1b()
    load_adapter(folder, model)
    assert same(model, newer)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_run_that_is_killed_between_the_two_files_leaves_an_adapter(folder, monkeypatch):
    def killed(path, *arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            save(folder, seed=1)
    model = esm1b()
    load_adapter(folder, model)
    assert same(model, save(folder.parent / "whole", seed=1))


def test_files_of_two_adapters_are_not_taken_for_one(folder, monkeypatch):
    save(folder.parent / "other", LowRank(3, 7.0, keys=LOW_RANK.keys, num_layers=1))
    shutil.copy(folder.parent / "other" / CONFIG, folder)
    waited = []
    monkeypatch.setattr(adapter.time, "sleep", waited.append)
    assert "are of different adapters, or one of them was changed" in refused(folder)
    # A writer that was between its two files has come to the second of them.
    monkeypatch.setattr(
        adapter.time, "sleep", lambda _: shutil.copy(folder.parent / "other" / ARRAYS, folder)
    )
    assert waited
    assert load_adapter(folder, esm1b()).scale == 7.0


def test_the_adapter_of_another_program_is_not_written_over(tmp_path):
    for write in (write_mlx_lm, write_peft):
        folder = write(tmp_path / write.__name__, {"peft_type": "LORA"}, {"a": mx.zeros(1)})
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(OutputError, match="are not of mlx-esm-kernels; give another folder"):
            save(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_place_that_cannot_be_a_folder_is_said(tmp_path):
    (tmp_path / "a").write_text("precious")
    with pytest.raises(OutputError, match="it is a file, not a folder"):
        save(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "precious"
    with pytest.raises(ValueError, match="has no low-rank products"):
        save_adapter(tmp_path / "b", esm1b(), LOW_RANK, BaseWeights("", ""))


def test_what_is_no_adapter_is_refused(folder, tmp_path):
    assert "There is no adapter" in refused(tmp_path / "nowhere")
    assert "it is a file; give the folder" in refused(folder / ARRAYS)
    (tmp_path / "empty").mkdir()
    assert "it has no adapter_config.json" in refused(tmp_path / "empty")
    (folder / ARRAYS).unlink()
    assert "There is no weights file" in refused(folder)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe", b"", b"[" * 100_000], ids=repr)
def test_json_that_is_none_is_refused(folder, text):
    (folder / CONFIG).write_bytes(text)
    assert "adapter_config.json is damaged" in refused(folder)


def test_another_base_is_refused_with_the_names_of_both(folder):
    told = refused(folder, esm1b(seed=5))
    assert "is an adapter of esm1b.pt (fingerprint" in told
    assert fingerprint_of_base(esm1b(seed=5)) in told
    assert fingerprint_of_base(esm1b()) in told


def set_key(*path, value):
    def edit(config, arrays):
        *outer, last = path
        for key in outer:
            config = config[key]
        config[last] = value

    return edit


Q_B = "layers.1.self_attn.q_proj.lora_b"


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (set_key("fine_tune_type", value="dora"), "has fine_tune_type 'dora'"),
        (set_key("fine_tune_type", value="full"), "has fine_tune_type 'full'"),
        (set_key("lora_parameters", value=[1]), "has no lora_parameters with rank and scale"),
        (set_key("lora_parameters", "keys", value="fc1"), "keys must be a list of names"),
        (set_key("lora_parameters", "keys", value=["mlp.up"]), "got mlp.up"),
        (set_key("lora_parameters", "rank", value="8"), "rank of an adapter must be 1 or more"),
        (set_key("lora_parameters", "rank", value=4), "must have shape"),
        (set_key("lora_parameters", "scale", value=None), "scale of an adapter must be"),
        (set_key("num_layers", value=3), "too few for an adapter of 3"),
        (set_key("num_layers", value=-1), "lacks layers.0.fc2.lora_a"),
        (set_key("num_layers", value="all"), "an adapter must have 1 layer or more"),
        (set_key("base", value="esm1b.pt"), "base has no name and fingerprint"),
        (lambda _, arrays: arrays.pop(Q_B), f"lacks {Q_B}"),
        (lambda _, arrays: arrays.update(more=mx.zeros(2)), "has also more"),
        (lambda _, arrays: arrays.update({Q_B: arrays[Q_B].T}), f"{Q_B} must have shape"),
        (lambda _, arrays: arrays.update({Q_B: arrays[Q_B] * math.nan}), "NaN or infinite"),
        (
            lambda _, arrays: arrays.update({Q_B: arrays[Q_B].astype(mx.int32)}),
            "(must be floats|must be one of)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(folder, edit, sentence):
    told = refused(change(folder, edit))
    assert re.search(sentence, told), told
    assert str(folder) in told


def test_arrays_that_are_cut_short_are_refused(folder):
    content = (folder / ARRAYS).read_bytes()
    (folder / ARRAYS).write_bytes(content[:-10])
    assert "is cut short" in refused(folder)


# Of other programs


def fc1(rank=2, layers=(0, 1)):
    rng = np.random.default_rng(3)
    return {
        f"layers.{number}.fc1.{side}": mx.array(rng.normal(0, 0.3, shape), mx.float32)
        for number in layers
        for side, shape in (("lora_a", (16, rank)), ("lora_b", (rank, 32)))
    }


def test_an_adapter_of_mlx_lm_is_read_with_a_warning(tmp_path):
    folder = write_mlx_lm(tmp_path / "a", MLX_LM_CONFIG, fc1())
    model = esm1b()
    with pytest.warns(WeightsWarning, match="does not say which model it was made for"):
        assert load_adapter(folder, model) == LowRank(2, 3.0, keys=("fc1",))
    loaded = adapter_arrays(model)
    assert all(mx.array_equal(loaded[name], array) for name, array in fc1().items())


PEFT_CONFIG = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 8,
    "base_model_name_or_path": "facebook/esm1b",
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "target_modules": ["query", "key", "value", "dense"],
    "rank_pattern": {},
}
PEFT_NAMES = {
    "attention.self.query": ("self_attn.q_proj", 16, 16),
    "attention.self.key": ("self_attn.k_proj", 16, 16),
    "attention.self.value": ("self_attn.v_proj", 16, 16),
    "attention.output.dense": ("self_attn.out_proj", 16, 16),
    "intermediate.dense": ("fc1", 16, 32),
    "output.dense": ("fc2", 32, 16),
}


def peft_arrays(prefix="base_model.model.esm.", head=True):
    rng = np.random.default_rng(4)
    places = {
        f"{prefix}encoder.layer.{number}.{name}": sizes
        for number in (0, 1)
        for name, (_, *sizes) in PEFT_NAMES.items()
    }
    if head:
        places["base_model.model.lm_head.dense"] = [16, 16]
    return {
        f"{place}.{side}.weight": mx.array(rng.normal(0, 0.3, shape), mx.float32)
        for place, (inputs, outputs) in places.items()
        for side, shape in (("lora_A", (2, inputs)), ("lora_B", (outputs, 2)))
    }


@pytest.mark.parametrize(("rslora", "scale"), [(False, 4.0), (True, 8 / math.sqrt(2))])
def test_an_adapter_of_peft_is_the_sum_that_peft_makes(tmp_path, rslora, scale):
    arrays = peft_arrays()
    folder = write_peft(tmp_path / "a", {**PEFT_CONFIG, "use_rslora": rslora}, arrays)
    model = esm1b()
    with pytest.warns(WeightsWarning, match="only for 'facebook/esm1b'"):
        load_adapter(folder, model)
    summed = esm1b()
    for name, b in arrays.items():
        if not name.endswith("lora_B.weight"):
            continue
        delta = scale * (b @ arrays[name.replace("lora_B", "lora_A")])
        layer = summed.lm_head.dense
        if "lm_head" not in name:
            place = re.search(r"layer\.(\d+)\.(.+)\.lora_B", name)
            layer = summed.layers[int(place[1])]
            for part in PEFT_NAMES[place[2]][0].split("."):
                layer = layer[part]
        layer.weight = layer.weight + delta
    np.testing.assert_allclose(logits(model), logits(summed), rtol=1e-4, atol=1e-4)


def test_an_adapter_of_a_bare_esm_with_a_trained_head_is_read_without_the_head(tmp_path):
    arrays = peft_arrays("base_model.model.", head=False)
    arrays["base_model.model.classifier.weight"] = mx.zeros((2, 16))
    folder = write_peft(tmp_path / "a", PEFT_CONFIG, arrays)
    with (
        pytest.warns(WeightsWarning, match="for which numbers"),
        pytest.warns(WeightsWarning, match=r"classifier\.weight left aside"),
    ):
        assert load_adapter(folder, esm1b()).scale == 4.0


@pytest.mark.parametrize(
    ("config", "more", "sentence"),
    [
        ({"peft_type": "IA3"}, {}, "has peft_type 'IA3'"),
        ({"use_dora": True}, {}, r"it has DoRA \(use_dora\)"),
        ({"rank_pattern": {"query": 4}}, {}, r"layers of several ranks \(rank_pattern\)"),
        ({"bias": "all"}, {}, "trained biases too"),
        ({"r": "2"}, {}, "r and lora_alpha must be numbers"),
        ({"lora_alpha": None}, {}, "r and lora_alpha must be numbers"),
        ({"lora_alpha": 0}, {}, "scale of an adapter must be"),
        ({"r": 4}, {}, "must have shape"),
        ({}, {"base_model.model.lm_head.decoder.weight": 1}, "beside the linear layers of an ESM"),
        (
            {},
            {"base_model.model.esm.encoder.layer.0.mlp.up.lora_A.weight": 1},
            "beside the linear layers of an ESM",
        ),
        ({}, {"base_model.model.esm.encoder.layer.7.output.dense.lora_A.weight": 1}, "has also"),
    ],
)
@pytest.mark.filterwarnings("ignore::mlx_esm_kernels.weights.opened.WeightsWarning")
def test_what_peft_can_do_beyond_that_is_refused(tmp_path, config, more, sentence):
    arrays = {**peft_arrays(), **dict.fromkeys(more, mx.zeros((2, 32)))}
    folder = write_peft(tmp_path / "a", {**PEFT_CONFIG, **config}, arrays)
    assert re.search(sentence, refused(folder))


def test_an_older_file_of_peft_is_named(tmp_path):
    folder = write_peft(tmp_path / "a", PEFT_CONFIG, peft_arrays())
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "has an adapter_model.bin of an older PEFT" in refused(folder)


# With their base


def test_a_model_with_an_adapter_is_not_written_as_weights(tmp_path):
    with pytest.raises(ValueError, match="has an adapter beside its layers"):
        save_weights(tmp_path / "w.safetensors", adapted(esm1b(), LOW_RANK))
    assert not (tmp_path / "w.safetensors").exists()


def test_an_adapter_in_place_of_weights_is_named_as_one(folder):
    with pytest.raises(WeightsError, match=r"has an adapter \(LoRA\), not a model: give its base"):
        load_model(folder)
    with pytest.raises(WeightsError, match="LoRA"):
        load_model(folder / ARRAYS)


@pytest.mark.parametrize("dtype", [None, mx.float32, mx.bfloat16])
def test_fused_weights_are_rounded_once(tmp_path, folder, dtype):
    save_weights(tmp_path / "w.safetensors", esm1b())
    fused = load_fused(tmp_path / "w.safetensors", folder, dtype)
    exact = load_fused(tmp_path / "w.safetensors", folder, mx.float32)
    exact.set_dtype(dtype or mx.float32)
    assert same(fused, exact)
    adapted_model = load_model(tmp_path / "w.safetensors", adapter=folder)
    bound = 0.1 if dtype is not None and dtype != mx.float32 else 1e-4
    np.testing.assert_allclose(logits(fused), logits(adapted_model), rtol=bound, atol=bound)


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path):
    model = esm1b()
    model.layers[0].fc1.weight = model.layers[0].fc1.weight * 1e6
    save_weights(tmp_path / "w.safetensors", model)
    base = BaseWeights("w", fingerprint_of_base(model))
    save_adapter(tmp_path / "a", adapted(model, LOW_RANK), LOW_RANK, base)
    for load in (load_fused, lambda path, a, dtype: load_model(path, dtype, a)):
        with pytest.raises(WeightsError, match=r"numbers that mlx\.core\.float16 cannot"):
            load(tmp_path / "w.safetensors", tmp_path / "a", "float16")
