"""convert from the outside: any weights in, ours or transformers' out, sentences for the rest."""

import json

import mlx.core as mx
import pytest
from checkpoint_files import (
    ESM1_CONFIG,
    ESM1B_CONFIG,
    SIZES,
    random_model,
    write_fair_esm,
    write_first_mlx_esm,
    write_hugging_face,
)
from click.testing import CliRunner
from random_models import esm1b, esm2, same

from mlx_esm_kernels import load_model, save_weights
from mlx_esm_kernels.commands import cli, convert
from mlx_esm_kernels.weights.first_mlx_esm import first_mlx_esm_config


def run(*arguments, command=convert.command):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_each_format_becomes_ours(tmp_path):
    model = random_model(ESM1B_CONFIG)
    result = run(write_hugging_face(tmp_path / "folder", model), tmp_path / "out.safetensors")
    assert result.exit_code == 0, result.output
    assert "(2 layers, width 8, 2 heads), with a contact regression" in result.output
    assert same(load_model(tmp_path / "out.safetensors"), model)
    first = random_model(first_mlx_esm_config(**{**SIZES, "num_heads": 4}))
    result = run(write_first_mlx_esm(tmp_path / "first.npz", first), tmp_path / "out.safetensors")
    assert "without a contact regression" in result.output
    assert same(load_model(tmp_path / "out.safetensors"), first)


def test_a_pt_file_becomes_ours(tmp_path):
    pytest.importorskip("torch")
    model = random_model(ESM1B_CONFIG)
    result = run(write_fair_esm(tmp_path / "in.pt", model), tmp_path / "out.safetensors")
    assert result.exit_code == 0, result.output
    assert same(load_model(tmp_path / "out.safetensors"), model)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_dtype_chooses_the_precision(tmp_path, name):
    model = random_model(ESM1B_CONFIG)
    write_hugging_face(tmp_path / "folder", model)
    result = run(tmp_path / "folder", tmp_path / "out.safetensors", "--dtype", name)
    assert result.exit_code == 0, result.output
    model.set_dtype(getattr(mx, name))
    assert same(load_model(tmp_path / "out.safetensors"), model)


def test_it_is_a_command_of_mlx_esm(tmp_path):
    write_hugging_face(tmp_path / "folder", random_model(ESM1B_CONFIG))
    result = run("convert", tmp_path / "folder", tmp_path / "out.safetensors", command=cli.main)
    assert result.exit_code == 0, result.output


def test_what_cannot_be_is_said_in_a_sentence_and_writes_nothing(tmp_path):
    result = run(tmp_path / "nowhere.pt", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert "There is no weights file" in result.output
    folder = write_hugging_face(tmp_path / "folder", random_model(ESM1B_CONFIG))
    result = run(folder, tmp_path / "missing" / "out.safetensors")
    assert result.exit_code == 1
    assert "out.safetensors cannot be written: there is no folder" in result.output
    assert run(folder, tmp_path / "in.safetensors").exit_code == 0
    before = (tmp_path / "in.safetensors").read_bytes()
    result = run(tmp_path / "in.safetensors", tmp_path / "in.safetensors", "--dtype", "float16")
    assert result.exit_code == 1
    assert "in.safetensors is the input too" in result.output
    assert (tmp_path / "in.safetensors").read_bytes() == before
    assert not (tmp_path / "out.safetensors").exists()


TO_HUGGING_FACE = ("--to", "hugging-face")


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_folder_for_transformers_has_the_model_in_the_precision_asked_for(tmp_path, name):
    model = esm1b()
    save_weights(tmp_path / "in.safetensors", model)
    result = run(tmp_path / "in.safetensors", tmp_path / "out", *TO_HUGGING_FACE, "--dtype", name)
    assert result.exit_code == 0, result.output
    assert f"saved to {tmp_path / 'out'} (" in result.output
    assert "newly initialized" not in result.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == name
    model.set_dtype(getattr(mx, name))
    assert same(load_model(tmp_path / "out"), model)


def test_a_folder_says_what_transformers_will_miss(tmp_path):
    save_weights(tmp_path / "in.safetensors", esm2(contact_head=False))
    result = run(tmp_path / "in.safetensors", tmp_path / "out", *TO_HUGGING_FACE)
    assert result.exit_code == 0, result.output
    assert "transformers will report contact_head as newly initialized" in result.output


def test_no_folder_is_made_of_what_is_refused_and_none_is_written_over(tmp_path):
    save_weights(tmp_path / "esm1.safetensors", random_model(ESM1_CONFIG))
    save_weights(tmp_path / "esm1b.safetensors", esm1b())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    before = sorted(tmp_path.rglob("*"))
    for given, target, sentence in (
        ("esm1", "out", "transformers' ESM is ESM-1b, ESM-1v and ESM-2, and this model has sinus"),
        ("esm1b", "mine", "mine has something in it already; give a new folder."),
        ("esm1b", "esm1.safetensors", "esm1.safetensors cannot be written: it is there already"),
        ("esm1b", "missing/out", "out cannot be written: there is no folder"),
    ):
        result = run(tmp_path / f"{given}.safetensors", tmp_path / target, *TO_HUGGING_FACE)
        assert result.exit_code == 1
        assert sentence in result.output
    folder = write_hugging_face(tmp_path / "folder", random_model(ESM1B_CONFIG))
    assert "is the input too" in run(folder, folder, *TO_HUGGING_FACE).output
    assert "it is a folder" in run(tmp_path / "esm1b.safetensors", tmp_path / "mine").output
    assert sorted(tmp_path.rglob("*")) == sorted([*before, folder, *folder.iterdir()])
