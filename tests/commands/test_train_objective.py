"""`train --objective`: which model it makes, what is kept of it, and going on with it."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training.config_file import read_config
from mlx_esm_kernels.weights import load_model, save_weights

SIZES = {"num_layers": 1, "embed_dim": 32, "ffn_dim": 64, "num_heads": 2, "max_positions": 64}
RUN = ("--data", "proteins.fasta", "--num-iters", 12, "--tokens-per-batch", 128)
RUN += ("--valid-every", 5, "--checkpoint-every", 3, "--keep", 100)
OBJECTIVES = ("mlm", "diffusion", "mixed")
WARNING = "The model keeps token dropout"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train.PRESETS, "small", ESM1Config(**SIZES))
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = np.random.default_rng(0).choice(letters, (40, 25))
    (tmp_path / "proteins.fasta").write_text(
        "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows))
    )
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def trained(*arguments, folder="run"):
    result = invoke(*RUN, *arguments, "--weights-dir", folder)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def config_of(folder="run"):
    return load_model(f"{folder}/weights.safetensors").config


def rows_of(folder):
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    times = {"residues_per_second", "waiting"}
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_new_model_says_its_objective_and_has_token_dropout_for_mlm_alone(objective):
    said = trained("--objective", objective)
    assert WARNING not in said
    config = config_of()
    assert config == ESM1Config(
        **SIZES, objective=objective, token_dropout=objective == "mlm", contact_head=False
    )
    tables = read_config("run/config.toml").tables
    assert tables["training"]["objective"] == objective
    assert tables["model"]["token_dropout"] is (objective == "mlm")
    bounds = [row["valid_bound"] for row in rows_of("run") if "valid_bound" in row]
    assert len(bounds) == (0 if objective == "mlm" else 4)
    assert ("bound of the likelihood" in said) == (objective != "mlm")


def test_mlm_is_what_is_trained_where_nothing_is_said_and_others_are_repeated_by_their_config():
    trained()
    trained("--objective", "mlm", folder="said")
    assert rows_of("run") == rows_of("said")
    assert config_of().objective == "mlm"
    trained("--objective", "mixed", folder="mixed")
    again = invoke("--config", "mixed/config.toml", "--weights-dir", "again")
    assert again.exit_code == 0, again.output
    assert rows_of("again") == rows_of("mixed")
    assert rows_of("mixed")[-1]["train_loss"] != rows_of("run")[-1]["train_loss"]


def test_what_a_configuration_says_of_token_dropout_stays_with_a_warning(workplace):
    model = "".join(f"{key} = {value}\n" for key, value in SIZES.items())
    training = '[training]\nobjective = "mixed"\n'
    (workplace / "said.toml").write_text(f"[model]\n{model}token_dropout = true\n{training}")
    (workplace / "unsaid.toml").write_text(f"[model]\n{model}{training}")
    assert WARNING in trained("--config", "said.toml", folder="said")
    assert WARNING not in trained("--config", "unsaid.toml", folder="unsaid")
    assert [config_of(name).token_dropout for name in ("said", "unsaid")] == [True, False]
    # The command line wins.
    trained("--config", "unsaid.toml", "--objective", "mlm", folder="mlm")
    assert (config_of("mlm").objective, config_of("mlm").token_dropout) == ("mlm", True)


@pytest.mark.parametrize("token_dropout", [True, False])
def test_weights_keep_their_token_dropout_and_their_objective_unless_it_is_said(
    workplace, token_dropout
):
    mx.random.seed(0)
    config = ESM1Config(**SIZES, objective="diffusion", token_dropout=token_dropout)
    save_weights(workplace / "given.safetensors", ESM1(config))
    said = trained("--weights-file", "given.safetensors")
    assert (WARNING in said) == token_dropout
    assert config_of() == config
    assert read_config("run/config.toml").tables["training"]["objective"] == "diffusion"
    said = trained("--weights-file", "given.safetensors", "--objective", "mlm", folder="mlm")
    assert WARNING not in said
    assert (config_of("mlm").objective, config_of("mlm").token_dropout) == ("mlm", token_dropout)


def killed_after(step, run, copy):
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
def test_a_killed_run_is_gone_on_with_bit_for_bit(workplace, objective):
    trained("--objective", objective)
    killed_after(6, workplace / "run", workplace / "killed")
    result = invoke("--resume", "killed")
    assert result.exit_code == 0, result.output
    assert "going on after step 6 of" in result.output
    assert rows_of("run") == rows_of("killed")
    one, other = (mx.load(f"{name}/weights.safetensors") for name in ("run", "killed"))
    assert all(mx.array_equal(one[name], other[name]) for name in one)
    assert config_of("killed") == config_of()


def test_a_checkpoint_from_before_there_were_objectives_goes_on_as_mlm(workplace):
    trained()
    killed_after(6, workplace / "run", workplace / "killed")
    for state in (workplace / "killed").glob("checkpoints/*/state.json"):
        content = json.loads(state.read_text())
        del content["recipe"]["settings"]["objective"], content["recipe"]["config"]["objective"]
        state.write_text(json.dumps(content))
    config = workplace / "killed" / "config.toml"
    config.write_text(config.read_text().replace('objective = "mlm"\n', ""))
    result = invoke("--resume", "killed")
    assert result.exit_code == 0, result.output
    assert rows_of("run") == rows_of("killed")


def test_a_run_does_not_change_its_objective_halfway(workplace):
    trained("--objective", "mixed")
    result = invoke("--resume", "run", "--objective", "mlm")
    assert (result.exit_code, "leave out --objective" in result.output) == (2, True)
    config = workplace / "run" / "config.toml"
    config.write_text(config.read_text().replace('objective = "mixed"', 'objective = "mlm"'))
    result = invoke("--resume", "run")
    assert result.exit_code == 2
    assert '[training] objective: expected "mixed"' in " ".join(result.output.split())


def test_an_adapter_learns_by_an_objective_and_its_base_stays_what_it_is(workplace):
    mx.random.seed(0)
    save_weights(workplace / "given.safetensors", ESM1(ESM1Config(**SIZES)))
    given = (workplace / "given.safetensors").read_bytes()
    lora = ("--weights-file", "given.safetensors", "--lora-rank", 2)
    assert WARNING in trained(*lora, "--objective", "mixed")
    assert "valid_bound" in rows_of("run")[-1]
    assert (workplace / "given.safetensors").read_bytes() == given
    killed_after(6, workplace / "run", workplace / "killed")
    assert invoke("--resume", "killed").exit_code == 0
    assert rows_of("run") == rows_of("killed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[training]\nobjective = "clm"\n', 'expected one of "mlm", "diffusion", "mixed"'),
        ('[model]\nobjective = "mlm"\n', "expected it in the table [training]"),
    ],
)
def test_an_objective_that_is_none_is_a_sentence(workplace, text, said):
    (workplace / "wrong.toml").write_text(text)
    result = invoke("--config", "wrong.toml")
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
