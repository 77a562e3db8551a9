"""Models of the Hugging Face Hub come by name, from a server on this machine."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import ESM1B_CONFIG, ESM2_CONFIG, random_model, write_hugging_face
from hub_server import running_hub
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from random_models import parameters, same

from mlx_esm_kernels import load_model
from mlx_esm_kernels.weights import RELEASED, WeightsError
from mlx_esm_kernels.weights.hub import is_hub_name
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

NAME = "facebook/esm2_t12_35M_UR50D"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_hub(tmp_path / "server") as hub:
        # What the library has read from HF_ENDPOINT and HF_HOME, perhaps long before.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def model():
    return random_model(ESM2_CONFIG)


def test_a_name_is_downloaded_once_and_then_needs_no_server(hub, model, monkeypatch):
    write_hugging_face(hub.publish(NAME), model)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert same(load_model(NAME), model)
    assert hub.downloaded() == ["config.json", "model.safetensors"]
    assert same(load_model(NAME), model)
    assert hub.downloaded() == ["config.json", "model.safetensors"]
    hub.status = 503
    assert same(load_model(NAME), model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert same(load_model(NAME), model)
    assert len(hub.requests) == asked


def test_nothing_that_is_not_needed_is_downloaded(hub, model):
    folder = write_hugging_face(hub.publish(NAME), model)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "model.onnx", "vocab.json"):
        (folder / name).write_text("gigabytes")
    load_model(NAME)
    assert hub.downloaded() == ["config.json", "model.safetensors"]


def test_a_revision_may_be_named(hub, model):
    write_hugging_face(hub.publish(NAME), model)
    other = random_model(ESM2_CONFIG, seed=1)
    folder = write_hugging_face(hub.publish(NAME, "v2"), other)
    assert same(load_model(f"{NAME}@v2"), other)
    assert same(load_model(f"{NAME}@{folder.name}"), other)
    assert same(load_model(NAME), model)
    with pytest.raises(WeightsError, match=r"no revision 'v3'; leave @v3 out for the newest\.$"):
        load_model(f"{NAME}@v3")


def test_a_new_revision_is_found(hub, model):
    write_hugging_face(hub.publish(NAME), model)
    assert same(load_model(NAME), model)
    other = random_model(ESM2_CONFIG, seed=1)
    write_hugging_face(hub.publish(NAME), other)
    assert same(load_model(NAME), other)


def test_shards_are_downloaded_all(hub, model):
    import mlx.core as mx

    folder = write_hugging_face(hub.publish(NAME), model)
    (folder / "model.safetensors").unlink()
    tensors = {name_in_transformers(name): p for name, p in parameters(model).items()}
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {name: p for name, p in tensors.items() if files[name] == file}
        mx.save_safetensors(str(folder / file), part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert same(load_model(NAME), model)


def bin_alone(folder, model):
    torch = pytest.importorskip("torch")
    write_hugging_face(folder, model)
    (folder / "model.safetensors").unlink()
    state = {
        name_in_transformers(name): torch.from_numpy(np.array(p))
        for name, p in parameters(model).items()
    }
    torch.save(state, folder / "pytorch_model.bin")


def test_a_bin_is_taken_where_there_is_nothing_else(hub, model, monkeypatch):
    bin_alone(hub.publish(NAME), model)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        with pytest.raises(WeightsError, match=r"has no \.safetensors; .*pip install .*convert"):
            load_model(NAME)
    assert hub.downloaded() == ["config.json"]
    assert same(load_model(NAME), model)


def test_esm1b_of_the_hub_is_its_copy_and_needs_no_torch(hub, monkeypatch):
    model = random_model(ESM1B_CONFIG)
    write_hugging_face(hub.publish("facebook/esm1b_t33_650M_UR50S"), model)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert same(load_model("facebook/esm1b_t33_650M_UR50S"), model)


def test_a_path_is_meant_rather_than_a_model_of_the_hub(hub, model, tmp_path):
    (tmp_path / "facebook").mkdir()
    with pytest.raises(
        WeightsError, match="not looked for on the Hugging Face Hub, since facebook"
    ):
        load_model(NAME)
    write_hugging_face(tmp_path / NAME, model)
    assert same(load_model(NAME), model)
    for name in ("data/model.pt", "a/b.safetensors", "a/b/c", "../a", "/a/b", "a/"):
        with pytest.raises(WeightsError, match="There is no weights file"):
            load_model(name)
    assert hub.requests == []


def test_what_the_hub_does_not_have_or_give_is_said(hub, model, monkeypatch):
    with pytest.raises(
        WeightsError, match=r"no file or folder a/b here, .*: there is no model of that name, or it"
    ):
        load_model("a/b")
    write_hugging_face(hub.publish(NAME), model)
    hub.gated.add(NAME)
    with pytest.raises(WeightsError, match=rf"Ask for it at {hub.url}/{NAME}, then run hf auth lo"):
        load_model(NAME)
    hub.status = 500
    with pytest.raises(WeightsError, match=rf"{hub.url} answers 500; try again later\.$"):
        load_model("a/b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match=r"a/b is not in .* cache .*HF_HUB_OFFLINE is set: unset"
    ):
        load_model("a/b")


def test_without_a_connection_it_is_said(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=rf"{NAME} cannot be .*9\): .*refused\. Check the conn"):
        load_model(NAME)


def test_a_cache_that_may_not_be_written_is_said(hub, model, monkeypatch, tmp_path):
    write_hugging_face(hub.publish(NAME), model)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(WeightsError, match=r"Not a directory \(.*; HF_HOME says where it is kept"):
        load_model(NAME)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": {"model_type": "esmc"}}, "has a model of type 'esmc'; this package has"),
        ({"config.json": {"model_type": "t5"}}, "has a model of type 't5'; this package has"),
        ({"config.json": {"model_type": "esm", "is_folding_model": True}}, "is ESMFold"),
        ({"config.json": []}, "must be a json object"),
        ({"adapter_config.json": {}}, "has an adapter .LoRA., not a model: give its base"),
        ({"README.md": {}}, "has no config.json, so it is no model of transformers"),
        ({"config.json": {"model_type": "esm"}}, "holds no weights: expected model.safetensors or"),
    ],
)
def test_another_kind_of_model_is_refused_before_it_is_downloaded(hub, files, sentence):
    pytest.importorskip("torch")
    folder = hub.publish("a/b")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    if "holds no weights" not in sentence:
        (folder / "model.safetensors").write_text("gigabytes")
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_model("a/b")
    assert "a/b" in str(caught.value) or "a--b" in str(caught.value)
    assert "model.safetensors" not in hub.downloaded()


@given(
    st.from_regex(r"[A-Za-z0-9][\w.-]{0,9}/[A-Za-z0-9][\w-]{0,9}(@[a-z0-9]{1,5})?", fullmatch=True)
)
def test_two_words_are_a_name_and_with_the_ending_of_a_file_they_are_not(name):
    assert is_hub_name(name)
    assert not is_hub_name(f"{name}.pt")
    assert not is_hub_name(f"./{name}")
    assert not is_hub_name(f"{name}/more") or "@" in name  # of a branch


def test_released_names_are_no_names_of_the_hub():
    assert not any(is_hub_name(name) for name in RELEASED)


def test_the_command_obeys_the_variables_of_the_hub(hub, model, tmp_path):
    write_hugging_face(hub.publish(NAME), model)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "MLX_ESM_KERNELS_CACHE": str(tmp_path / "cache"),
    }
    command = [
        sys.executable,
        "-m",
        "mlx_esm_kernels.unmask",
        "--weights-file",
        NAME,
        "--seq",
        "M_K",
    ]
    run = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "home" / "hub" / "models--facebook--esm2_t12_35M_UR50D").is_dir()
    assert f"downloading {NAME} on the Hugging Face Hub".encode() in run.stderr
    assert b"\r" not in run.stderr  # no bars where nobody watches
