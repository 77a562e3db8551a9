"""Training from the outside: the command, what it leaves behind, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training import listeners
from mlx_esm_kernels.training.record import MetricsLog
from mlx_esm_kernels.training.run import RunFiles, new_state, run_training
from mlx_esm_kernels.training.run_folder import RunFolder, open_run_folder
from mlx_esm_kernels.training.settings import Settings
from mlx_esm_kernels.training.validation import Validation
from mlx_esm_kernels.weights import load_model, save_weights

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
QUICK = ("--num-iters", "3", "--tokens-per-batch", "128")


def random_sequences(count, length=25, seed=0):
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    return ["".join(row) for row in np.random.default_rng(seed).choice(letters, (count, length))]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, a cache of its own, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(train.PRESETS, "small", TINY)
    write_fasta(tmp_path / "proteins.fasta", random_sequences(40))
    return tmp_path


def write_fasta(path, sequences):
    path.write_text("".join(f">p{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_weights_a_record_and_a_plot_and_says_where(workplace):
    result = invoke("--data", "proteins.fasta", *QUICK)
    assert result.exit_code == 0, result.output
    folder = workplace / "runs" / "proteins-1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.toml",
        "loss.png",
        "metrics.jsonl",
        "weights.safetensors",
    ]
    assert load_model(folder / "weights.safetensors").config == TINY
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")

    rows = rows_of(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows[1:]:
        assert {"train_loss", "learning_rate", "residues_per_second", "waiting"} <= set(row)
        assert row["valid_perplexity"] == pytest.approx(np.exp(row["valid_loss"]))
        assert 15 < row["unigram_perplexity"] < 25

    lines = result.output.splitlines()
    assert lines[0] == "📥 loading data"
    assert "1,000 residues" in lines[1]
    assert sum(line.startswith("🔍 step") for line in lines) == 4
    assert "💾 weights saved to runs/proteins-1/weights.safetensors" in lines
    compared = [line for line in lines if "this model" in line]
    assert compared[0].split()[-1] == f"{rows[-1]['valid_perplexity']:.2f}"
    assert "floor" not in result.output  # nobody knows it for real proteins
    assert not re.search(r"[\r\x1b]", result.output)


def test_the_next_run_gets_a_folder_of_its_own(workplace):
    for number in (1, 2):
        result = invoke("--data", "proteins.fasta", *QUICK)
        assert f"runs/proteins-{number}/" in result.output


def test_the_same_seed_trains_the_same_weights_and_another_does_not(workplace):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        invoke("--data", "proteins.fasta", *QUICK, "--seed", seed, "--weights-dir", name)
    a, b, c = (
        load_model(workplace / name / "weights.safetensors").layers[0].fc1.weight for name in "abc"
    )
    assert mx.array_equal(a, b)
    assert not mx.array_equal(a, c)


def test_several_files_may_follow_data_and_it_may_be_repeated(workplace):
    for name in ("b.fasta", "c.fasta"):
        write_fasta(workplace / name, random_sequences(5, seed=ord(name[0])))
    result = invoke("--data", "proteins.fasta", "b.fasta", *QUICK, "--data=c.fasta")
    assert result.exit_code == 0, result.output
    assert "50 proteins" in result.output


def test_duplicates_are_held_out_together(workplace):
    sequences = random_sequences(30)
    write_fasta(workplace / "twice.fasta", sequences + sequences[::-1])
    corpus = train.open_corpus(["twice.fasta"], [], ESM1B)
    sides = [{bytes(corpus.proteins[i]) for i in side} for side in (corpus.train, corpus.valid)]
    assert not sides[0] & sides[1]
    assert len(corpus.train) + len(corpus.valid) == 60


def test_weights_file_goes_on_in_place(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    weights = workplace / "run" / "weights.safetensors"
    before = load_model(weights)
    result = invoke("--data", "proteins.fasta", *QUICK, "--weights-file", weights)
    assert result.exit_code == 0, result.output
    rows = rows_of(workplace / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    # It begins where the first run ended, not anew.
    shown = re.search(r"step 3: held-out perplexity ([\d.]+)", result.output)
    assert shown[1] == f"{rows[3]['valid_perplexity']:.2f}"
    assert not mx.array_equal(load_model(weights).lm_head.bias, before.lm_head.bias)


def test_weights_file_with_a_weights_dir_leaves_the_file_as_it_was(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "first")
    weights = workplace / "first" / "weights.safetensors"
    before = weights.read_bytes()
    result = invoke(
        *("--data", "proteins.fasta", *QUICK),
        *("--weights-file", weights, "--weights-dir", "second"),
    )
    assert result.exit_code == 0, result.output
    assert weights.read_bytes() == before
    assert (workplace / "second" / "weights.safetensors").exists()


def test_weights_that_are_there_are_not_written_over_by_a_new_run(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    before = (workplace / "run" / "weights.safetensors").read_bytes()
    result = invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    assert result.exit_code == 1
    assert "is there already and would be lost" in result.output
    assert (workplace / "run" / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["given.safetensors", "weights.safetensors"])
def test_weights_that_are_no_run_of_ours_are_left_as_they_are(workplace, name):
    given = workplace / name
    save_weights(given, ESM1(TINY))
    before = given.read_bytes()
    result = invoke("--data", "proteins.fasta", *QUICK, "--weights-file", given)
    assert result.exit_code == 0, result.output
    assert given.read_bytes() == before
    assert sorted(path.name for path in workplace.iterdir() if path.suffix) == sorted(
        [name, "proteins.fasta"]
    )
    assert (workplace / "runs" / "proteins-1" / "weights.safetensors").exists()
    assert "weights saved to runs/proteins-1/weights.safetensors" in result.output


def test_a_run_is_gone_on_with_through_a_link_to_its_weights(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    (workplace / "best.safetensors").symlink_to("run/weights.safetensors")
    result = invoke("--data", "proteins.fasta", *QUICK, "--weights-file", "best.safetensors")
    assert result.exit_code == 0, result.output
    assert (workplace / "best.safetensors").is_symlink()
    assert [row["step"] for row in rows_of(workplace / "run" / "metrics.jsonl")][-1] == 6


def test_a_protected_file_is_not_replaced(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    weights = workplace / "run" / "weights.safetensors"
    weights.chmod(0o444)
    before = weights.read_bytes()
    result = invoke("--data", "proteins.fasta", *QUICK, "--weights-file", weights)
    assert result.exit_code == 1
    assert re.search("protected from being written.* --weights-dir", result.output)
    assert weights.read_bytes() == before
    aside = invoke(
        *("--data", "proteins.fasta", *QUICK, "--weights-file", weights, "--weights-dir", "next")
    )
    assert aside.exit_code == 0, aside.output


def test_a_folder_has_one_writer_until_that_one_ends(workplace):
    with open_run_folder(Path("run"), None, label="x"):
        result = invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
        assert result.exit_code == 1
        assert f"Another run (process {os.getpid()}) writes in run." in result.output
    assert invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run").exit_code == 0


def test_a_loss_that_is_no_number_stops_with_a_sentence_and_spares_the_weights(workplace):
    invoke("--data", "proteins.fasta", *QUICK, "--weights-dir", "run")
    weights = workplace / "run" / "weights.safetensors"
    before = weights.read_bytes()
    result = invoke(
        *("--data", "proteins.fasta", "--num-iters", "50", "--tokens-per-batch", "128"),
        *("--weights-file", weights, "--learning-rate", "1e38", "--warmup", "0"),
        *("--valid-every", "50"),
    )
    assert result.exit_code == 1
    stopped = re.search(r"Error: Training stopped at step (\d+): .*(nan|inf)", result.output)
    assert 3 < int(stopped[1]) < 10  # at once, not at the next validation
    assert "is as it was before this run. A learning rate below 1e+38" in result.output
    assert weights.read_bytes() == before
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--data", "none.fasta"), "none.fasta"),
        (("--data", "sample", "--data", "proteins.fasta"), "it is trained on alone"),
        (("--dataset-partitions", "1,x"), "expected partition numbers such as 1 or 1,2,3; got 'x'"),
        (("--dataset-partitions", "201"), "201"),
        (("--num-iters", "0"), "0 is not in the range x>=1"),
        (("--tokens-per-batch", "7"), "7 is not in the range"),
        (("--learning-rate", "-1"), "-1.0 is not in the range x>0"),
        (("--learning-rate", "inf"), "expected a finite number; got inf"),
        (("--max-minutes", "nan"), "expected a finite number; got nan"),
        (("--betas", "nan", "0.9"), "expected a finite number; got nan"),
        (("--clip-norm", "0"), "0.0 is not in the range x>0"),
        (("--weight-decay", "inf"), "expected a finite number; got inf"),
        (("--preset", "huge"), "'huge' is not one of 'small'"),
        (("--weights-file", "none.safetensors"), "There is no weights file none.safetensors."),
        (("--weights-file", "proteins.fasta"), "is no safetensors file"),
        (("--weights-file", "x", "--preset", "small"), "leave one of them out"),
        (("--data", "proteins.fasta", "--weights-dir", "proteins.fasta/x"), "--weights-dir"),
        (("--data", "one.fasta"), "two different proteins"),
        (("proteins.fasta",), "unexpected extra argument (proteins.fasta)"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_sentence(workplace, arguments, sentence):
    write_fasta(workplace / "one.fasta", ["MKTAYIAKQR"])
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert isinstance(result.exception, SystemExit)  # not an error that nobody foresaw
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is a GPU")
def test_a_device_that_is_not_there_is_answered_with_a_sentence(workplace):
    result = invoke("--device", "gpu")
    assert result.exit_code == 2
    assert "MLX has no GPU on this machine" in result.output


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGHUP,
        *(
            pytest.param(number, marks=pytest.mark.slow)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGXCPU)
        ),
    ],
)
def test_a_signal_saves_the_weights_and_says_where(workplace, number):
    command = [sys.executable, "-u", "-m", "mlx_esm_kernels.train", "--data", "proteins.fasta"]
    command += ["--tokens-per-batch", "128", "--num-iters", "1000000", "--weights-dir", "run"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup ignores one of them
    ) as process:
        record = workplace / "run" / "metrics.jsonl"
        wait_for(lambda: record.exists() and len(rows_of(record)) > 1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number, output
    assert "💾 weights saved to run/weights.safetensors" in output
    assert "Traceback" not in output
    load_model(workplace / "run" / "weights.safetensors")
    assert (workplace / "run" / "loss.png").exists()


def test_ctrl_c_before_the_first_step_saves_nothing_and_says_so(workplace, monkeypatch):
    def interrupt(*arguments):
        signal.raise_signal(signal.SIGINT)
        yield 1.0

    monkeypatch.setattr(Validation, "losses", interrupt)
    result = invoke("--data", "proteins.fasta", *QUICK)
    assert result.exit_code == 128 + signal.SIGINT
    assert "no weights to save" in result.output
    assert not list(workplace.glob("runs/*/weights.safetensors"))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_full_disk_is_answered_with_a_sentence(workplace, monkeypatch):
    def fail(path, *others):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(listeners, "save_weights", fail)
    result = invoke("--data", "proteins.fasta", *QUICK)
    assert result.exit_code == 1
    assert "weights.safetensors: No space left on device." in result.output


def test_max_minutes_ends_a_run_that_has_no_number_of_steps(workplace):
    begun = time.monotonic()
    result = invoke("--data", "proteins.fasta", "--max-minutes", "0.02", *QUICK[2:])
    assert result.exit_code == 0, result.output
    assert time.monotonic() - begun < 30
    rates = [row["learning_rate"] for row in rows_of(next(workplace.glob("runs/*/*.jsonl")))[1:]]
    assert rates[-1] < 0.2 * max(rates)


def test_the_sample_is_the_default_and_is_compared_with_its_floor(workplace):
    result = invoke(*QUICK)
    assert result.exit_code == 0, result.output
    assert "synthetic proteins" in result.output
    assert "entropy floor" in result.output
    row = rows_of(workplace / "runs" / "sample-1" / "metrics.jsonl")[-1]
    assert row["floor_perplexity"] < row["unigram_perplexity"]


def test_a_model_learns_ten_proteins_by_heart(tmp_path):
    mx.random.seed(0)
    model = ESM1(ESM1Config(num_layers=1, embed_dim=64, ffn_dim=128, num_heads=4, max_positions=64))
    proteins = Proteins.from_sequences(random_sequences(10, length=20))
    everything = np.arange(10)
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        # Each protein four times a batch, with other masks: steps of this size cost more in calls
        # than in sums.
        batches = PackedBatches(
            proteins, np.tile(everything, 4), ESM1B, rows=14, row_length=64, seed=0
        )
        settings = Settings(num_iters=250, learning_rate=1e-2, warmup=20, valid_every=250)
        outcome = run_training(
            new_state(model, batches, settings),
            # Validated on what it trains on: the question is whether it can learn it at all.
            Validation(proteins, everything, everything, ESM1B, max_positions=64),
            settings,
            RunFiles(
                RunFolder(
                    tmp_path / "weights.safetensors",
                    tmp_path / "metrics.jsonl",
                    tmp_path / "loss.png",
                ),
                log,
            ),
        )
    assert outcome.valid_loss < 0.1  # of 3.0 for residue frequencies


def test_a_model_without_eos_is_trained_on(workplace):
    config = ESM1Config.esm1(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
    save_weights(workplace / "esm1.safetensors", ESM1(config))
    result = invoke("--weights-file", "esm1.safetensors", "--weights-dir", "run", *QUICK)
    assert result.exit_code == 0, result.output
    assert "entropy floor" in result.output
    trained = load_model(workplace / "run" / "weights.safetensors")
    assert trained.config == config
    assert rows_of(workplace / "run" / "metrics.jsonl")[-1]["step"] == 3
