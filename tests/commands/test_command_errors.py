"""Every command: what a person can mend is one sentence, and a bug of ours is called one."""

import errno
import itertools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import mlx.core as mx
import pytest
from click.testing import CliRunner
from pdb_files import protein
from random_models import esm1b

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli, train
from mlx_esm_kernels.data.download import DownloadError
from mlx_esm_kernels.fitting.head import Head, HeadSpec
from mlx_esm_kernels.fitting.head_folder import Base, HeadError, SavedHead, save_head
from mlx_esm_kernels.inference.embedding import Embedder
from mlx_esm_kernels.system.errors import DataError, UserError
from mlx_esm_kernels.system.whole_file import OutputError
from mlx_esm_kernels.training.checkpoint import CheckpointError
from mlx_esm_kernels.training.config_file import ConfigError
from mlx_esm_kernels.training.record import MetricsError
from mlx_esm_kernels.training.reports import ReportError
from mlx_esm_kernels.training.run_folder import RunFolderError
from mlx_esm_kernels.training.settings import TrainingDiverged
from mlx_esm_kernels.weights import WeightsError

COMMANDS = "mlx_esm_kernels.commands"
# Each command with arguments that do, and a function in the middle of its work.
INSIDE = {
    "contacts": (["p.fasta", "-o", "out.npz"], f"{COMMANDS}.contacts.contact_rows"),
    "convert": (["w.safetensors", "out.safetensors"], f"{COMMANDS}.convert.write_model"),
    "doctor": (["--quick", "--json", "out.json"], f"{COMMANDS}.doctor.add_checks"),
    "embed": (["p.fasta", "-o", "out.npz"], (Embedder, "run")),
    "evaluate": (["p.fasta", "--json", "out.json"], f"{COMMANDS}.evaluate.measure"),
    "fit": (
        ["--data", "l.csv", "--target-col", "y", "--task", "regression", "-o", "out.head"],
        f"{COMMANDS}.fit.fit_head",
    ),
    "fuse": (["--adapter", "a", "-o", "out.safetensors"], f"{COMMANDS}.fuse.load_fused"),
    "generate": (["--length", "5", "-o", "out.fasta"], f"{COMMANDS}.growing.fill_masks"),
    "judge": (
        ["q.fasta", "--against", "p.fasta", "--json", "out.json"],
        f"{COMMANDS}.judge.assess",
    ),
    "predict": (["head", "p.fasta", "-o", "out.csv"], f"{COMMANDS}.predict.predict"),
    "report": (["done", "-o", "out.html"], f"{COMMANDS}.report.run_page"),
    "score": (
        ["--sequence", "MKT", "--all-single", "--dms-output", "out.csv"],
        f"{COMMANDS}.score.score_variants",
    ),
    "train": (["--data", "p.fasta", "--weights-dir", "run"], (train, "run_training")),
    "unmask": (["--seq", "M*", "-o", "out.fasta"], f"{COMMANDS}.growing.fill_masks"),
    "view": (["p.pdb", "-o", "out.html"], f"{COMMANDS}.view.view"),
}
USER_ERRORS = [
    UserError,
    DataError,
    DownloadError,
    HeadError,
    MetricsError,
    OutputError,
    CheckpointError,
    ConfigError,
    ReportError,
    RunFolderError,
    TrainingDiverged,
    WeightsError,
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    save_weights("w.safetensors", esm1b())
    (tmp_path / "p.pdb").write_text(protein("MKTAYI"))
    (tmp_path / "p.fasta").write_text(">a\nMKTAYI\n>b\nMKQRQI\n")
    (tmp_path / "q.fasta").write_text(">a\nMKTAYIA\n")
    rows = [f"MKT{a}{b},{a < b}" for a, b in itertools.product("ACDE", repeat=2)]
    text = "sequence,y\n" + "\n".join(rows)
    (tmp_path / "l.csv").write_text(text.replace("True", "1").replace("False", "0"))
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "metrics.jsonl").write_text('{"step": 0}\n')
    spec = HeadSpec("regression", "protein", (), (2,), "error", 16)
    (tmp_path / "head").mkdir()
    base = Base.of(esm1b(), "w.safetensors")
    save_head(tmp_path / "head", SavedHead(Head(spec), spec, base, "sequence"))
    return tmp_path


def run(name, *more):
    arguments = INSIDE[name][0]
    weights = [] if name in ("convert", "doctor", "report") else ["--weights-file", "w.safetensors"]
    return CliRunner().invoke(cli.main, [name, *weights, *arguments, *more])


def plant(monkeypatch, name, error):
    """Have the command raise an error in the middle of its work."""

    def broken(*arguments, **named):
        raise error

    where = INSIDE[name][1]
    monkeypatch.setattr(*((where,) if isinstance(where, str) else where), broken)


def test_every_command_is_looked_at():
    assert sorted([*INSIDE, "completion"]) == sorted(cli.main.commands)


def is_called_a_bug(result, bug):
    """Whether what is said is one line: that it is ours, what and where it is, and what to do."""
    head = re.escape(f"not yours ({type(bug).__name__}: {bug}, ") + r"[a-z_/]+\.py, line \d+\)\. "
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert "\nError: " not in f"\n{result.stderr}"
    last = result.stderr.splitlines()[-1]
    assert re.match(f"Bug: this is a mistake in mlx-esm-kernels, {head}", last)
    assert "MLX_ESM_KERNELS_DEBUG=1 in the environment shows the traceback; please report" in last
    return True


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_a_bug_of_ours_is_not_shown_as_the_mistake_of_the_user(place, monkeypatch, name, kind):
    bug = kind("boom")
    plant(monkeypatch, name, bug)
    assert is_called_a_bug(run(name), bug)


def test_an_oserror_about_no_file_is_a_bug_too(place, monkeypatch):
    bug = OSError(errno.EBADF, "Bad file descriptor")
    plant(monkeypatch, "convert", bug)
    assert is_called_a_bug(run("convert"), bug)


def test_a_bug_in_what_reads_an_option_is_one_as_well(place, monkeypatch):
    bug = ValueError("boom")

    def broken(name):
        raise bug

    monkeypatch.setattr(f"{COMMANDS}.train_config.read_config", broken)
    assert is_called_a_bug(run("train", "--config", "small-mac"), bug)


@pytest.mark.parametrize("kind", [ValueError, UserError])
def test_errors_keep_their_traceback_where_that_is_asked_for(place, monkeypatch, kind):
    bug = kind("boom")
    monkeypatch.setenv("MLX_ESM_KERNELS_DEBUG", "1")
    plant(monkeypatch, "convert", bug)
    assert run("convert").exception is bug


@pytest.mark.parametrize("name", INSIDE)
def test_what_a_person_can_mend_is_a_sentence_in_every_command(place, monkeypatch, name):
    plant(monkeypatch, name, UserError("Mend this."))
    result = run(name)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "Error: Mend this.")


@pytest.mark.parametrize("kind", USER_ERRORS)
def test_each_kind_of_user_error_is_a_sentence(place, monkeypatch, kind):
    plant(monkeypatch, "convert", kind("Mend this."))
    result = run("convert")
    assert (result.exit_code, result.stderr) == (1, "Error: Mend this.\n")
    assert issubclass(kind, ValueError)  # as callers of the library expect


def test_no_kind_of_user_error_is_left_out():
    def below(kind):
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert {kind for kind in below(UserError) if kind.__module__.startswith("mlx_esm")} == set(
        USER_ERRORS
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
    ],
)
def test_trouble_with_a_file_or_the_disk_is_a_sentence(place, monkeypatch, error, sentence):
    plant(monkeypatch, "convert", error)
    result = run("convert")
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")


@pytest.mark.parametrize("name", INSIDE)
def test_a_warning_is_a_line(place, monkeypatch, name):
    def warned(*arguments, **named):
        warnings.warn("Careful.", UserWarning, stacklevel=1)
        raise UserError("Mend this.")

    where = INSIDE[name][1]
    monkeypatch.setattr(*((where,) if isinstance(where, str) else where), warned)
    assert "⚠️ Careful.\nError: Mend this.\n" in run(name).stderr


COMPUTING = sorted(set(INSIDE) - {"convert"})


@pytest.mark.parametrize("name", COMPUTING)
def test_every_command_that_computes_has_a_device(place, monkeypatch, name):
    chosen = []
    monkeypatch.setattr(mx, "set_default_device", chosen.append)
    plant(monkeypatch, name, UserError("It has begun."))
    assert "It has begun." in run(name, "--device", "cpu").stderr
    assert chosen == [mx.Device(mx.cpu)]


@pytest.mark.parametrize("name", COMPUTING)
def test_a_device_that_is_not_there_is_the_same_sentence_everywhere(place, monkeypatch, name):
    monkeypatch.setattr(mx, "is_available", lambda device: device.type == mx.cpu)
    result = run(name, "--device", "gpu")
    assert result.exit_code == 2
    said = "Invalid value for --device: MLX has no GPU on this machine; leave it out, or say cpu."
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", sorted(set(INSIDE) - {"train"}))
def test_what_cannot_be_written_is_known_before_any_work(place, monkeypatch, name):
    def loaded(*arguments, **named):
        raise AssertionError("it has begun to work")

    monkeypatch.setattr(f"{COMMANDS}.flags.load_model", loaded)
    arguments = [
        argument.replace("out.", "nowhere/out.") if argument.startswith("out.") else argument
        for argument in INSIDE[name][0]
    ]
    monkeypatch.setitem(INSIDE, name, (arguments, ""))
    result = run(name)
    assert result.exit_code == 1
    assert "cannot be written: there is no folder nowhere" in " ".join(result.stderr.split())


def test_generated_proteins_are_there_whole_or_not_at_all(place, monkeypatch):
    (place / "out.fasta").write_text("precious")

    def full(path, *arguments, **named):
        with path.open("w") as file:
            file.write(">half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(place), "write_text", full)
    result = run("generate")
    assert result.exit_code == 1
    assert "out.fasta cannot be written: No space left on device" in result.stderr
    assert (place / "out.fasta").read_text() == "precious"
    assert sorted(path.name for path in place.glob("*out*")) == ["out.fasta"]


def test_the_title_of_a_picture_is_not_read_as_mathematics(place):
    (place / "p.fasta").write_text(">$\\frac$ 5\nMKTAYI\n")
    result = run("contacts")
    assert result.exit_code == 0, result.output


# Standard streams that are closed, full or gone

STREAMS = [
    ">&- 2>&- <&-",
    *(
        pytest.param(streams, marks=pytest.mark.slow)
        for streams in (">&-", "2>&-", "<&-", ">/dev/full", "2>/dev/full", "| true")
    ),
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize(
    ("name", "output"), [("train", "run/weights.safetensors"), ("embed", "out.npz")]
)
def test_streams_that_take_nothing_do_not_stop_the_work(place, name, output, streams):
    arguments = " ".join(INSIDE[name][0])
    if name == "train":
        arguments += " --num-iters 2 --tokens-per-batch 64"
    command = f"{sys.executable} -m mlx_esm_kernels.{name} {arguments} "
    command += "" if name == "train" else "--weights-file w.safetensors "
    run = subprocess.run(
        ["bash", "-c", command + streams], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in run.stdout + run.stderr
    assert (place / output).exists(), run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(
    ("streams", "sentence"),
    [
        (">&-", "Error: Standard output is closed: give -o FILE, or leave it open."),
        (">/dev/full", "Error: Standard output cannot be written: No space left on device."),
        (">&- -o p.fasta", None),
        ("2>&- >p.fasta", None),
        ("2>/dev/full >p.fasta", None),
    ],
)
def test_proteins_that_no_one_gets_are_an_error(place, streams, sentence):
    command = f"{sys.executable} -m mlx_esm_kernels.generate --weights-file w.safetensors "
    command += f"--length 5 {streams}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    if sentence:
        assert (run.returncode, run.stderr.splitlines()[-1]) == (1, sentence)
        assert "Traceback" not in run.stderr
    else:
        assert run.returncode == 0
        assert (place / "p.fasta").read_text().startswith(">generated_1 ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[malloc_or_wait] Unable to allocate 4096 bytes."),
        RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than the "
                     "maximum allowed buffer size of 8 bytes."),
        RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory "
                     "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)."),
    ],
)  # fmt: skip
def test_memory_that_cannot_be_had_is_one_sentence(place, monkeypatch, error):
    plant(monkeypatch, "embed", error)
    result = run("embed")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: There is not enough memory for this.")


WORDS = "[METAL] Command buffer execution failed: {} (0000000e:kIOGPUCommandBufferCallbackError)."


@pytest.mark.parametrize("words", ["Impacting Interactivity", "Caused GPU Timeout Error"])
def test_work_that_macos_ends_for_the_screen_says_what_helps(place, monkeypatch, words):
    plant(monkeypatch, "embed", RuntimeError(WORDS.format(words)))
    result = run("embed")
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith("Error: macOS ended the GPU's work, as the screen had to wait for it.")
    assert "MLX_MAX_OPS_PER_BUFFER=4" in last
    assert words in last


def test_a_fault_of_a_kernel_is_not_shown_as_the_machine_s(place, monkeypatch):
    fault = RuntimeError(WORDS.format("Caused GPU Address Fault Error"))
    plant(monkeypatch, "embed", fault)
    assert is_called_a_bug(
        run("embed"), RuntimeError(WORDS.format("Caused GPU Address Fault Error"))
    )
