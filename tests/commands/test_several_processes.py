"""`mlx.launch -n N ... train`: several processes take the steps that one would have taken."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from launching import TINY_TRAIN, kill, launch, output_of

from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.weights import save_weights

RUN = ("--data", "proteins.fasta", "--num-iters", 12, "--tokens-per-batch", 320)
RUN += ("--valid-every", 6, "--checkpoint-every", 4, "--keep", 100)
ENDLESS = ("--data", "proteins.fasta", "--num-iters", 10**6, "--tokens-per-batch", 320)
ENDLESS += ("--valid-every", 10**6, "--checkpoint-every", 3, "--weights-dir", "run")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder with proteins.fasta and train.py in it."""
    monkeypatch.chdir(tmp_path)
    write_fasta(tmp_path / "proteins.fasta", seed=0)
    (tmp_path / "train.py").write_text(TINY_TRAIN)
    return tmp_path


def write_fasta(path, seed):
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = np.random.default_rng(seed).choice(letters, (60, 30))
    path.write_text("".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows)))


def train(count, *arguments):
    return output_of(launch(count, "train.py", *arguments))


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def near(one, other):
    """The same losses and weights but for the order of sums."""
    rows, others = rows_of(one), rows_of(other)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for name in ("train_loss", "valid_loss", "valid_bound", "learning_rate"):
        expected = [row.get(name, 0) for row in rows]
        assert [row.get(name, 0) for row in others] == pytest.approx(expected, rel=2e-5), name
    expected, got = (mx.load(str(run / "weights.safetensors")) for run in (one, other))
    for name in expected:
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding alone
            np.testing.assert_allclose(got[name], expected[name], atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(workplace):
    alone = train(1, *RUN, "--weights-dir", "alone")
    said = train(2, *RUN, "--weights-dir", "run")
    assert "by 2 processes on the cpu" in said
    # One speaks: it says what one process alone would have said.
    assert len(said.splitlines()) == len(alone.splitlines()), said
    near(workplace / "alone", workplace / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("--grad-accumulation", 2),
        ("--objective", "diffusion"),
        ("--objective", "mixed", "--grad-accumulation", 2),
        ("--precision", "bfloat16"),
        ("--precision", "float16", "--grad-accumulation", 2),
    ],
    ids=str,
)
def test_four_processes_with_every_setting(workplace, settings):
    """Five rows of a batch: one process has two of them."""
    train(1, *RUN, *settings, "--weights-dir", "alone")
    said = train(4, *RUN, *settings, "--weights-dir", "run")
    assert "by 4 processes" in said
    if "--precision" not in settings:
        near(workplace / "alone", workplace / "run")
        return
    losses = [
        [row.get("train_loss", 0) for row in rows_of(workplace / run)] for run in ("alone", "run")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


@pytest.mark.slow
def test_a_run_is_resumed_by_another_number_of_processes(workplace):
    said = train(1, *RUN, "--weights-dir", "alone")
    for before, after in ((2, 3), (3, 1)):
        run = workplace / f"run-{before}"
        train(before, *RUN, "--weights-dir", run)
        for path in (run / "checkpoints").iterdir():
            if path.name > "step-000000004":
                shutil.rmtree(path)
        said = train(after, "--resume", run)
        assert "going on after step 4 of" in said
        near(workplace / "alone", run)


def processes_of(launcher):
    """Their numbers: the launcher has a thread for each of them, in the order of their ranks."""
    threads = sorted(Path(f"/proc/{launcher.pid}/task").iterdir(), key=lambda p: int(p.name))
    children = [(path / "children").read_text().split() for path in threads]
    return [int(pid) for some in children for pid in some]


@pytest.fixture
def started():
    """Begins an endless run: its launcher, and the numbers of its processes once they train."""
    launched = []

    def start(count=2):
        process = launch(count, "train.py", *ENDLESS)
        launched.append(process)
        end = time.monotonic() + 60
        while not list(Path("run/checkpoints").glob("step-*")):
            assert time.monotonic() < end
            time.sleep(0.05)
        return process, processes_of(process)

    yield start
    for process in launched:
        kill(process)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds the processes in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_dies_ends_the_run_within_seconds(workplace, started, victim):
    process, children = started()
    os.kill(children[victim], signal.SIGKILL)
    killed = time.monotonic()
    said = output_of(process, seconds=30)
    assert time.monotonic() - killed < 20
    # Which of the two depends on where the other was waiting.
    assert "Another process of mlx.launch has ended" in said or "heard no more from" in said
    assert "Traceback" not in said
    rows = rows_of(workplace / "run")
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds the processes in /proc")
def test_a_signal_to_one_of_them_stops_all_after_the_same_step(workplace, started):
    process, children = started(3)
    os.kill(children[2], signal.SIGTERM)
    said = output_of(process, seconds=30)
    assert "weights saved to" in said
    assert "Error" not in said
    step = rows_of(workplace / "run")[-1]["step"]
    assert (workplace / "run" / "checkpoints" / f"step-{step:09d}").is_dir()


@pytest.mark.slow
def test_what_they_cannot_share_is_said(workplace):
    said = train(8, *RUN, "--weights-dir", "run")
    assert "A batch has 5 rows of 64 tokens, which 8 processes cannot divide among them" in said
    assert "--tokens-per-batch 512" in said
    assert not (workplace / "run").exists()


OTHER_DATA = """
import os, sys
if os.environ["MLX_RANK"] == "1":
    sys.argv[sys.argv.index("proteins.fasta")] = "other.fasta"
"""


@pytest.mark.slow
def test_processes_with_different_proteins_do_not_train_together(workplace):
    write_fasta(workplace / "other.fasta", seed=1)
    (workplace / "train.py").write_text(OTHER_DATA + TINY_TRAIN)
    said = train(2, *RUN, "--weights-dir", "run")
    assert "All processes must have the same proteins (--data)" in said
    assert not (workplace / "run").exists()


EMBED_AND_SCORE = """
import sys
from mlx_esm_kernels.commands import embed, score
commands = {"embed": embed.command, "score": score.command}
commands[sys.argv[1]](sys.argv[2:])
"""


@pytest.mark.slow
def test_embeddings_and_scores_are_the_same_file(workplace):
    """Shared out by passes, each of which is what one process would run: bit for bit."""
    (workplace / "run.py").write_text(EMBED_AND_SCORE)
    mx.random.seed(0)
    config = ESM1Config(num_layers=2, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=512)
    save_weights(workplace / "w.safetensors", ESM1(config))
    rng = np.random.default_rng(1)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    with (workplace / "many.fasta").open("w") as file:
        for i in range(60):
            file.write(f">p{i}\n{''.join(rng.choice(letters, rng.integers(1, 500)))}\n")
    wild_type = "".join(rng.choice(letters, 100))
    weights = ("--weights-file", "w.safetensors")
    embed = ("embed", *weights, "many.fasta", "--include", "mean", "per-residue", "bos", "-o")
    score = ("score", *weights, "--sequence", wild_type, "--all-single")
    score += ("--scoring-strategy", "masked-marginals", "--dms-output")
    for count in (1, 3):
        said = output_of(launch(count, "run.py", *embed, f"{count}.safetensors"))
        assert said.count("saved to") == 1, said
        assert not (workplace / f"{count}.safetensors.partial").exists()
        said = output_of(launch(count, "run.py", *score, f"{count}.csv", "--html", f"{count}.html"))
        assert said.count("in a browser") == 1, said
        assert said.count("variants of 100 residues saved to") == 1, said
    for name in ("safetensors", "csv"):
        assert (workplace / f"1.{name}").read_bytes() == (workplace / f"3.{name}").read_bytes()
    pages = [(workplace / f"{count}.html").read_text("utf-8") for count in (1, 3)]
    assert pages[0].replace("1.csv", "3.csv") == pages[1]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds the processes in /proc")
def test_embeddings_that_are_stopped_go_on_with_any_number_of_processes(workplace):
    (workplace / "run.py").write_text(EMBED_AND_SCORE)
    mx.random.seed(0)
    config = ESM1Config(num_layers=6, embed_dim=128, ffn_dim=512, num_heads=8, max_positions=512)
    save_weights(workplace / "w.safetensors", ESM1(config))
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = np.random.default_rng(1).choice(letters, (200, 400))
    (workplace / "many.fasta").write_text(
        "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows))
    )
    embed = ("embed", "--weights-file", "w.safetensors", "many.fasta", "-o")
    process = launch(2, "run.py", *embed, "stopped.safetensors")
    try:
        partial = workplace / "stopped.safetensors.partial"
        end = time.monotonic() + 60
        while not partial.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.3)
        _, second = processes_of(process)
        os.kill(second, signal.SIGTERM)
        said = output_of(process, seconds=60)
    finally:
        kill(process)
    assert "stopped after" in said, said
    said = output_of(launch(3, "run.py", *embed, "stopped.safetensors"))
    assert "are there already" in said, said
    output_of(launch(1, "run.py", *embed, "whole.safetensors"))
    whole, stopped = (workplace / f"{name}.safetensors" for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
