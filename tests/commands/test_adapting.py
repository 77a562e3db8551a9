"""`train --lora-rank`: an adapter is trained, and the weights that it is for are never touched."""

import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_esm_kernels import load_model
from mlx_esm_kernels.commands import train
from mlx_esm_kernels.data.proteins import load_proteins, split_held_out
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training.validation import Validation
from mlx_esm_kernels.weights import save_weights
from mlx_esm_kernels.weights.adapter import load_adapter

CONFIG = ESM1Config(num_layers=2, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
RUN = ("--data", "proteins.fasta", "--num-iters", 20, "--tokens-per-batch", 128)
RUN += ("--valid-every", 6, "--checkpoint-every", 4, "--keep", 100)
LORA = ("--weights-file", "base.safetensors", "--lora-rank", 4)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = np.random.default_rng(0).choice(letters, (40, 25))
    (tmp_path / "proteins.fasta").write_text(
        "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows))
    )
    mx.random.seed(1)
    save_weights(tmp_path / "base.safetensors", ESM1(CONFIG))
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def trained(folder, *settings):
    result = invoke(*RUN, *LORA, *settings, "--weights-dir", folder)
    assert result.exit_code == 0, result.output
    return result.output


def arrays_of(run):
    return mx.load(str(run / "adapters" / "adapters.safetensors"))


def rows_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if k not in ("residues_per_second", "waiting")} for r in rows
    ]


def test_an_adapter_alone_is_trained_and_saved(workplace):
    before = (workplace / "base.safetensors").read_bytes()
    said = trained("run")
    assert "an adapter of" in said
    assert "adapter saved to run/adapters" in said
    assert f"--weights-file {workplace}/base.safetensors --adapter run/adapters" in said
    assert (workplace / "base.safetensors").read_bytes() == before
    assert not (workplace / "run" / "weights.safetensors").exists()
    assert all(name.endswith(("lora_a", "lora_b")) for name in arrays_of(workplace / "run"))
    checkpoints = sorted((workplace / "run" / "checkpoints").iterdir())
    names = mx.load(str(checkpoints[0] / "arrays.safetensors"))
    assert all("lora_" in name for name in names)
    rows = rows_of(workplace / "run")
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]


def test_an_adapter_begins_as_the_weights_and_is_of_the_layers_asked_for(workplace):
    trained("run", "--lora-layers", 1, "--lora-keys", "self_attn.q_proj", "fc1")
    names = set(arrays_of(workplace / "run"))
    assert names == {
        f"layers.1.{key}.lora_{factor}" for key in ("self_attn.q_proj", "fc1") for factor in "ab"
    }
    result = invoke(*RUN[:-4], "--num-iters", 1, *LORA[:2], "--weights-dir", "other")
    assert result.exit_code == 0
    plain = rows_of(workplace / "other")[0]["valid_loss"]
    assert rows_of(workplace / "run")[0]["valid_loss"] == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [(), ("--precision", "bfloat16", "--lora-dropout", 0.2, "--grad-accumulation", 2),
     ("--grad-checkpointing", "--lora-dropout", 0.1, "--optimizer", "muon")],
    ids=str,
)  # fmt: skip
def test_a_killed_run_is_gone_on_with_bit_for_bit(workplace, settings):
    trained("whole", *settings)
    trained("killed", *settings)
    killed = workplace / "killed"
    for path in sorted((killed / "checkpoints").iterdir())[2:]:
        (path / "state.json").unlink()
        (path / "arrays.safetensors").unlink()
        path.rmdir()
    result = invoke("--resume", killed)
    assert result.exit_code == 0, result.output
    assert "going on after step 8 of an adapter of" in result.output
    whole, again = arrays_of(workplace / "whole"), arrays_of(killed)
    assert whole.keys() == again.keys()
    assert all(mx.array_equal(whole[name], again[name]) for name in whole)
    assert rows_of(workplace / "whole") == rows_of(killed)


def test_what_is_saved_is_what_was_trained(workplace):
    """The adapted model has the held-out loss that the run said last."""
    trained("run")
    model = load_model("base.safetensors")
    load_adapter(workplace / "run" / "adapters", model)
    proteins = load_proteins("proteins.fasta")
    validation = Validation(proteins, *split_held_out(proteins), model.alphabet, max_positions=64)
    loss = sum(validation.losses(model))
    assert loss == pytest.approx(rows_of(workplace / "run")[-1]["valid_loss"], rel=1e-6)


def test_the_configuration_of_a_run_repeats_it(workplace):
    trained("run", "--lora-scale", 5, "--lora-keys", "fc1", "self_attn.v_proj")
    result = invoke("--config", "run/config.toml", "--weights-dir", "again")
    assert result.exit_code == 0, result.output
    first, again = arrays_of(workplace / "run"), arrays_of(workplace / "again")
    assert first.keys() == again.keys()
    assert all(mx.array_equal(first[name], again[name]) for name in first)


def test_dropout_is_of_training_alone_and_changes_it(workplace):
    trained("plain")
    trained("dropped", "--lora-dropout", 0.5)
    plain, dropped = (rows_of(workplace / run) for run in ("plain", "dropped"))
    assert plain[0] == dropped[0]
    assert plain[1]["train_loss"] != dropped[1]["train_loss"]


def test_other_weights_of_that_name_are_not_gone_on_with(workplace):
    trained("run")
    mx.random.seed(2)
    save_weights(workplace / "base.safetensors", ESM1(CONFIG))
    result = invoke("--resume", "run")
    assert result.exit_code == 1
    assert "base.safetensors has other weights than those" in result.output


def test_an_adapter_that_is_there_is_never_lost(workplace):
    trained("run")
    before = (workplace / "run" / "adapters" / "adapters.safetensors").read_bytes()
    result = invoke(*RUN, *LORA, "--weights-dir", "run")
    assert result.exit_code == 1
    assert "run/adapters is there already and would be lost" in result.output
    assert (workplace / "run" / "adapters" / "adapters.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lora-rank", 4), "give --weights-file, too"),
        (("--weights-file", "base.safetensors", "--lora-layers", 1), "--lora-layers is of"),
        ((*LORA, "--lora-layers", 3), "the model has 2 layers, too few for an adapter of 3"),
        ((*LORA, "--preset", "small"), "leave one of them out"),
    ],
    ids=str,
)
def test_what_makes_no_adapter_is_said(workplace, arguments, said):
    result = invoke(*RUN, *arguments, "--weights-dir", "run")
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert not (workplace / "run").exists()
