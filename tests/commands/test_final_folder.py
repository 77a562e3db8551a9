"""`train --hugging-face`: at the end of a run, a folder for transformers; refused at its start."""

import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from random_models import same

from mlx_esm_kernels import load_model, save_weights
from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.config import PRESETS, ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.training.config_file import read_config
from mlx_esm_kernels.training.validation import Validation
from mlx_esm_kernels.weights import hugging_face_writing

SIZES = {"num_layers": 1, "embed_dim": 32, "ffn_dim": 64, "num_heads": 2, "max_positions": 64}
RUN = ("--data", "proteins.fasta", "--num-iters", 6, "--tokens-per-batch", 128)
RUN += ("--checkpoint-every", 2)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "small", ESM1Config(**SIZES))
    rows = ["MKTAYIAKQRQISFVKSHFSR"[i % 7 :] + "ACDEFGHIKLMNPQRSTVWY"[i:] for i in range(19)]
    (tmp_path / "proteins.fasta").write_text("".join(f">p{r}\n{r}\n" for r in rows))
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def trained(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments):
    """What is said instead of training; nothing has been made."""
    before = sorted(Path().rglob("*"))
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert sorted(Path().rglob("*")) == before
    return " ".join(result.output.split("Error: ")[-1].split())


def stopped(*arguments):
    """A run that a signal ends at its first validation after a step."""
    losses, calls = Validation.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "losses", interrupted)
        result = invoke(*arguments, "--valid-every", 2)
    assert result.exit_code == 128 + signal.SIGTERM, result.output
    return " ".join(result.output.split())


def test_the_folder_has_the_weights_of_the_end(workplace):
    text = trained(*RUN, "--weights-dir", "run", "--hugging-face", "out")
    assert f"saved to {workplace}/out (" in text
    assert "transformers will report contact_head as newly initialized" in text
    assert same(load_model("out"), load_model("run"))
    config = (workplace / "run" / "config.toml").read_text()
    assert f'hugging_face = "{workplace}/out" # of this run alone' in config


def test_it_may_be_in_the_folder_of_the_run():
    trained(*RUN, "--weights-dir", "new/run", "--hugging-face", "new/run/transformers")
    assert same(load_model("new/run/transformers"), load_model("new/run/weights.safetensors"))


def test_it_is_a_key_of_a_recipe_and_none_takes_it_back():
    Path("r.toml").write_text('[training]\nhugging_face = "out"\n')
    trained("--config", "r.toml", *RUN, "--weights-dir", "a")
    assert Path("out/config.json").exists()
    assert "out has something in it already; give a new folder" in refused(
        "--config", "a/config.toml"
    )
    trained("--config", "a/config.toml", "--weights-dir", "b", "--hugging-face", "none")
    assert "hugging_face" not in read_config("b/config.toml").tables["training"]
    Path("r.toml").write_text("[training]\nhugging_face = 1\n")
    said = refused("--config", "r.toml")
    assert "[training] hugging_face: expected a path; got 1" in said


def test_a_run_that_was_stopped_writes_it_where_it_ends(workplace, monkeypatch):
    said = stopped(*RUN, "--weights-dir", "run", "--hugging-face", "out")
    assert "out is written at the end of the run: go on with --resume" in said
    assert not Path("out").exists()
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    trained("--resume", "../run")
    assert same(load_model("../out"), load_model("../run"))


def test_a_resumed_run_may_be_given_another_one():
    stopped(*RUN, "--weights-dir", "run", "--hugging-face", "out")
    Path("out").mkdir()
    Path("out/mine").write_text("x")
    assert "out has something in it already" in refused("--resume", "run")
    trained("--resume", "run", "--hugging-face", "other")
    assert same(load_model("other"), load_model("run"))


def test_what_could_not_be_written_is_refused_before_the_work():
    Path("file").write_text("x")
    Path("full").mkdir()
    Path("full/mine").write_text("x")
    for folder, sentence in (
        ("file", "Invalid value for --hugging-face: "),
        ("file", "file cannot be written: it is there already and is no folder."),
        ("full", "full has something in it already; give a new folder."),
        (".", "has something in it already"),
        ("missing/out", "out cannot be written: there is no folder"),
    ):
        assert sentence in refused(*RUN, "--weights-dir", "run", "--hugging-face", folder)


def test_the_folder_of_the_run_itself_is_refused():
    result = invoke(*RUN, "--weights-dir", "run", "--hugging-face", "run")
    assert result.exit_code == 2
    assert "run has something in it already; give a new folder." in result.output
    assert not Path("run/weights.safetensors").exists()


def test_a_model_that_transformers_does_not_have_is_refused():
    Path("r.toml").write_text(
        "[model]\n" + "".join(f"{k} = {v}\n" for k, v in SIZES.items()) + "bias_kv = true\n"
    )
    said = refused("--config", "r.toml", *RUN, "--hugging-face", "out")
    assert "this model has one more key and value in each attention" in said


def test_an_adapter_is_refused_with_what_makes_a_folder_of_it():
    save_weights("w.safetensors", ESM1(PRESETS["small"]))
    lora = ("--weights-file", "w.safetensors", "--lora-rank", 2)
    said = refused(*RUN, *lora, "--hugging-face", "out")
    assert "--lora-rank trains an adapter; leave it out" in said
    assert "mlx-esm fuse --to hugging-face" in said


def test_a_disk_that_does_not_take_it_costs_the_folder_alone(monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hugging_face_writing, "_write_tensors", fail)
    result = invoke(*RUN, "--weights-dir", "run", "--hugging-face", "out")
    assert result.exit_code == 1
    assert "out cannot be written: No space left on device." in result.output
    assert not Path("out").exists()
    assert load_model("run").config == PRESETS["small"]
