"""Runs that are stopped, killed or damaged, and gone on with as if nothing had been."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train, train_options
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.training import checkpoint
from mlx_esm_kernels.training.run_folder import open_run_folder
from mlx_esm_kernels.training.validation import Validation
from mlx_esm_kernels.weights import load_model

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
STEPS = 23
RUN = ("--data", "proteins.fasta", "--num-iters", STEPS, "--tokens-per-batch", 128)
RUN += ("--valid-every", 5, "--checkpoint-every", 2, "--keep", 100)


def write_fasta(path, count, seed=0):
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = np.random.default_rng(seed).choice(letters, (count, 25))
    path.write_text("".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows)))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train.PRESETS, "small", TINY)
    write_fasta(tmp_path / "proteins.fasta", 40)
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def undisturbed(folder):
    """A whole run there, with all of its checkpoints."""
    result = invoke(*RUN, "--weights-dir", folder)
    assert result.exit_code == 0, result.output
    return folder


def as_if_killed_after(run, step, folder):
    """A copy that has no later checkpoint than that of `step`; its record goes on until the end."""
    shutil.copytree(run, folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    (folder / "weights.safetensors").write_bytes(b"of some other step")
    return folder


def rows_of(run):
    """All but the times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = {"residues_per_second", "waiting"}
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def weights_of(run):
    return mx.load(str(run / "weights.safetensors"))


def same_end(a, b):
    one, other = weights_of(a), weights_of(b)
    assert one.keys() == other.keys()
    assert all(mx.array_equal(one[name], other[name]) for name in one)
    assert rows_of(a) == rows_of(b)


@pytest.mark.parametrize("step", [2, 4, 10, 12, 22])
def test_a_killed_run_is_gone_on_with_bit_for_bit(workplace, step):
    """In the middle of a row of the record, at a validation, and just before the end."""
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, step, workplace / "killed")
    result = invoke("--resume", killed)
    assert result.exit_code == 0, result.output
    assert f"going on after step {step} of" in result.output
    same_end(whole, killed)


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [("float32", "adamw"), ("bfloat16", "muon"), ("float16", "adamw")],
)
def test_every_setting_is_that_of_the_run(workplace, precision, optimizer):
    settings = ("--precision", precision, "--optimizer", optimizer)
    settings += ("--grad-accumulation", 2, "--schedule", "cosine", "--betas", 0.9, 0.95)
    settings += (
        "--grad-checkpointing",
        "--weight-decay",
        0.1,
        "--max-length",
        20,
        "--learning-rate",
        0.002,
    )
    plain = undisturbed(workplace / "plain")
    assert invoke(*RUN, *settings, "--weights-dir", "whole").exit_code == 0
    whole = workplace / "whole"
    assert rows_of(whole)[-1]["train_loss"] != rows_of(plain)[-1]["train_loss"]
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    assert invoke("--resume", killed).exit_code == 0
    same_end(whole, killed)


def test_a_run_from_weights_is_gone_on_with_as_well(workplace):
    """Its steps are counted on, and its masks are others than those of the first."""
    first = undisturbed(workplace / "first")
    begun = invoke(*RUN, "--weights-file", first / "weights.safetensors")
    assert begun.exit_code == 0, begun.output
    assert (first / "checkpoints-before-1").is_dir(), "those of the run before it"
    killed = as_if_killed_after(first, STEPS + 6, workplace / "killed")
    assert invoke("--resume", killed).exit_code == 0
    same_end(first, killed)


def test_a_model_without_a_position_table_trains_on_longer_rows_and_goes_on_with_them(
    workplace, monkeypatch
):
    endless = ESM1Config.esm2(1, 32, 2, max_positions=20)
    monkeypatch.setitem(train.PRESETS, "small", endless)
    assert invoke(*RUN, "--max-length", 27, "--weights-dir", "whole").exit_code == 0
    whole = workplace / "whole"
    assert load_model(whole / "weights.safetensors").config.max_positions == 27
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    assert invoke("--resume", killed).exit_code == 0
    same_end(whole, killed)
    # A table ends them, and the default is what the config says.
    for config, flags in ((TINY, ("--max-length", 70)), (endless, ())):
        monkeypatch.setitem(train.PRESETS, "small", config)
        folder = workplace / str(config.max_positions)
        assert invoke(*RUN, *flags, "--weights-dir", folder, "--num-iters", 1).exit_code == 0
        model = load_model(folder / "weights.safetensors")
        assert model.config.max_positions == config.max_positions


@pytest.mark.parametrize("validation", [2, 3])
def test_a_signal_in_a_validation_loses_nothing(workplace, monkeypatch, validation):
    whole = undisturbed(workplace / "whole")
    losses, calls = Validation.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        for loss in losses(self, *arguments):
            if len(calls) == validation:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
            yield loss

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "losses", interrupted)
        stopped = invoke(*RUN, "--checkpoint-every", "never", "--weights-dir", "stopped")
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert invoke("--resume", "stopped").exit_code == 0
    same_end(whole, workplace / "stopped")


def test_a_complete_run_is_what_it_was(workplace):
    run = undisturbed(workplace / "run")
    rows = rows_of(run)
    result = invoke(*RUN[:6], "--weights-dir", "other", "--checkpoint-every", STEPS)
    assert result.exit_code == 0
    assert invoke("--resume", "other").exit_code == 0
    assert invoke("--resume", run).exit_code == 0
    assert rows_of(run) == rows


def test_as_many_checkpoints_as_wanted_are_kept(workplace):
    assert invoke(*RUN, "--keep", 3, "--weights-dir", "run").exit_code == 0
    names = sorted(path.name for path in (workplace / "run" / "checkpoints").iterdir())
    assert names == [f"step-{step:09d}" for step in (18, 20, 22)]


def damage(path):
    content = bytearray((path / checkpoint.ARRAYS).read_bytes())
    content[len(content) // 2] ^= 1
    (path / checkpoint.ARRAYS).write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        damage,
        lambda path: (path / checkpoint.STATE).write_text("{}"),
        lambda path: (path / checkpoint.STATE).write_text('{"format": "theirs"}'),
        lambda path: (path / checkpoint.STATE).unlink(),
        lambda path: (path / checkpoint.ARRAYS).write_bytes(b""),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_serves(workplace, spoil):
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    spoil(killed / "checkpoints" / "step-000000012")
    result = invoke("--resume", killed)
    assert result.exit_code == 0, result.output
    assert "the one before it is used" in result.output
    assert (killed / "checkpoints" / "damaged-step-000000012").is_dir()
    assert "going on after step 10 of" in result.output
    same_end(whole, killed)


def test_where_none_is_whole_nothing_is_touched(workplace):
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, 2, workplace / "killed")
    damage(killed / "checkpoints" / "step-000000002")
    rows = rows_of(killed)
    result = invoke("--resume", killed)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert "has no checkpoint to go on from" in last
    assert "--weights-file" in last
    assert rows_of(killed) == rows


def test_what_a_killed_process_left_half_done_is_no_checkpoint(workplace):
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    half_done = killed / "checkpoints" / ".step-000000014.123-4"
    half_done.mkdir()
    (half_done / checkpoint.ARRAYS).write_bytes(b"")
    assert invoke("--resume", killed, "--checkpoint-every", 2).exit_code == 0
    same_end(whole, killed)
    assert not half_done.exists()


@contextmanager
def files_of_at_most(nbytes):
    """A write beyond that fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(workplace):
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    size = (whole / "weights.safetensors").stat().st_size  # a third of a checkpoint
    with files_of_at_most(2 * size):
        result = invoke("--resume", killed, "--checkpoint-every", 2)
    assert result.exit_code == 1
    assert "step-000000014 cannot be written: " in result.output.splitlines()[-1]
    names = {path.name for path in (killed / "checkpoints").iterdir()}
    assert names == {f"step-{step:09d}" for step in range(2, 14, 2)}, "no half-done one"
    assert invoke("--resume", killed).exit_code == 0
    same_end(whole, killed)


def test_other_data_are_refused(workplace):
    killed = undisturbed(workplace / "run")
    rows = rows_of(killed)
    write_fasta(workplace / "proteins.fasta", 41)
    result = invoke("--resume", killed)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert "these are 41 proteins" in last
    assert "not the 40 with 1,000 that the run was begun with" in last
    assert rows_of(killed) == rows


def test_it_is_found_from_any_folder(workplace, monkeypatch):
    whole = undisturbed(workplace / "whole")
    killed = as_if_killed_after(whole, 12, workplace / "killed")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    assert invoke("--resume", killed).exit_code == 0
    same_end(whole, killed)


def test_a_record_of_another_run_is_refused(workplace):
    killed = undisturbed(workplace / "run")
    (killed / "metrics.jsonl").write_text('{"step": 1}\n')
    result = invoke("--resume", killed)
    assert result.exit_code == 1
    assert "it is not the record of this run" in result.output.splitlines()[-1]
    assert (killed / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_two_processes_do_not_go_on_with_one_run(workplace):
    killed = undisturbed(workplace / "run")
    shutil.copytree(killed, workplace / "copy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_run_folder(workplace / "run", str(killed / "weights.safetensors"), label="x"):
            result = invoke("--resume", killed)
    assert result.exit_code == 1
    assert "writes in" in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--resume", "run", "--seed", "1"), "leave out --seed."),
        (("--resume", "run", "--weights-file", "w"), "leave out --weights-file."),
        (("--resume", "nowhere"), "Error: nowhere is no folder of a run."),
        (("--checkpoint-every", "often"), "a time such as 90s, 15m or 2h, or never; got 'often'."),
        (("--checkpoint-every", "0"), "or never; got '0'."),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(arguments, sentence):
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert result.output.rstrip().endswith(sentence)


@pytest.mark.parametrize(
    ("text", "every"),
    [("500", (500, None)), ("90s", (None, 90)), ("15m", (None, 900)), ("2H", (None, 7200)),
     ("never", (None, None))],
)  # fmt: skip
def test_how_often_is_steps_or_time(text, every):
    parsed = train_options.parse_every(None, None, text)
    assert (parsed.steps, parsed.seconds) == every


KILLED = """
import sys
from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.esm1 import ESM1Config
train.PRESETS["small"] = ESM1Config(
    num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64
)
train.command(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "settings"),
    [(12, []), (4, ["--precision", "bfloat16"]), (4, ["--grad-accumulation", "2"])],
)
def test_kills_at_any_moment_change_nothing(workplace, kills, settings):
    every = ["--checkpoint-every", "13"]
    run = ["--data", "proteins.fasta", "--num-iters", "3000", "--tokens-per-batch", "256"]
    run += [*settings, *every, "--weights-dir"]

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def complete(*arguments):
        process = start(*arguments)
        said = process.communicate()[1]
        assert process.returncode == 0, said

    complete(*run, "whole")
    rng, killed = np.random.default_rng(1), workplace / "killed"
    for kill in range(kills):
        is_begun = any((killed / "checkpoints").glob("step-*"))
        if not is_begun:
            shutil.rmtree(killed, ignore_errors=True)
        process = start(*(["--resume", "killed", *every] if is_begun else [*run, "killed"]))
        time.sleep(rng.uniform(0.8, 1.3))
        if process.poll() is not None:
            assert kill >= kills // 2, "it was over before it could be killed"
            break
        process.kill()
        process.communicate()
    complete("--resume", "killed")
    same_end(workplace / "whole", killed)
