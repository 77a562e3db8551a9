"""`train --report-to`: the rows of a run arrive elsewhere, and nothing there harms the run."""

import importlib.machinery
import json
import os
import shutil
import struct
import subprocess
import sys
import types
import warnings
from pathlib import Path

import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.config import PRESETS, ESM1Config
from mlx_esm_kernels.training import reports
from mlx_esm_kernels.training.config_file import read_config

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
RUN = ("--data", "proteins.fasta", "--num-iters", 9, "--tokens-per-batch", 128)
RUN += ("--valid-every", 5, "--checkpoint-every", 2, "--keep", 9)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setitem(PRESETS, "small", TINY)
    rows = ["MKTAYIAKQRQISFVKSHFSR"[i % 7 :] + "ACDEFGHIKLMNPQRSTVWY"[i:] for i in range(19)]
    (tmp_path / "proteins.fasta").write_text("".join(f">p{r}\n{r}\n" for r in rows))
    return tmp_path


class Wandb(types.ModuleType):
    """As much of wandb as is used: keeps what it is told, by run id, as the service would."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.begun, self.sent, self.configs, self.ends = [], {}, {}, []
        self.fails_at, self.cannot_begin = None, None

    def Settings(self, **settings):
        return settings

    def init(self, **arguments):
        if self.cannot_begin:
            raise RuntimeError(self.cannot_begin)
        self.begun.append(arguments)
        rows = self.sent.setdefault(arguments["id"], {})
        return types.SimpleNamespace(
            step=max(rows, default=-1) + 1,
            url="https://example.org/run",
            offline=False,
            log=lambda values, step: self.log(rows, values, step),
            finish=lambda exit_code: self.ends.append(exit_code),
            config=types.SimpleNamespace(
                update=lambda values, allow_val_change: self.configs.update(values)
            ),
        )

    def log(self, rows, values, step):
        if self.fails_at is not None and step >= self.fails_at:
            raise ConnectionError(f"the line\nis dead at {step}")
        assert step >= max(rows, default=-1), "wandb leaves such a row out, with a warning"
        rows[step] = values


@pytest.fixture
def wandb(monkeypatch):
    stub = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return stub


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def trained(*arguments, is_reported=True):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert ("gets no more of this run" in result.output) != is_reported
    return result


def rows_of(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def by_step(rows):
    return {row["step"]: {k: v for k, v in row.items() if k != "step"} for row in rows}


def kill_after(run, step, folder):
    """A copy that has no later checkpoint, as if a kill had come soon after that one."""
    shutil.copytree(run, folder)
    for path in Path(folder, "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def test_wandb_gets_every_row_the_configuration_and_the_name_of_the_run(wandb):
    result = trained(*RUN, "--weights-dir", "runs/mine", "--report-to", "wandb")
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["resume"]) == (
        "mlx-esm-kernels",
        "mine",
        "allow",
    )
    assert wandb.sent[begun["id"]] == by_step(rows_of("runs/mine"))
    tables = read_config("runs/mine/config.toml").tables
    assert wandb.configs == {
        key: value for table in tables.values() for key, value in table.items()
    }
    assert wandb.configs["report_to"] == ["wandb"]
    assert wandb.ends == [0]
    assert "📡 reported to wandb: https://example.org/run" in result.output


def test_a_resumed_run_is_the_same_run_there_without_being_told(wandb):
    trained(*RUN, "--weights-dir", "run", "--report-to", "wandb")
    kill_after("run", 4, "killed")
    trained("--resume", "killed")
    first, second = wandb.begun
    assert first["id"] == second["id"]
    assert len(wandb.sent) == 1
    # All was sent before; the times differ, and what is told again is left out.
    assert wandb.sent[first["id"]] == by_step(rows_of("run"))


def test_another_run_is_another_one_there(wandb):
    for name in ("a", "b"):
        trained(*RUN, "--weights-dir", name, "--report-to", "wandb")
    assert len(wandb.sent) == 2


def test_a_folder_used_anew_is_another_run_there(wandb):
    trained(*RUN, "--weights-dir", "run", "--report-to", "wandb")
    Path("run/weights.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(*RUN, "--weights-dir", "run", "--report-to", "wandb")
    assert len(wandb.sent) == 2
    assert Path("run/wandb-before-1").is_dir()


def test_a_run_that_is_reported_late_is_reported_whole(wandb):
    trained(*RUN, "--weights-dir", "run")
    kill_after("run", 6, "killed")
    trained("--resume", "killed", "--report-to", "wandb")
    (sent,) = wandb.sent.values()
    assert sent == by_step(rows_of("killed"))
    assert 0 in sent


def test_none_takes_the_place_of_what_a_recipe_says(wandb):
    Path("r.toml").write_text('[training]\nreport_to = "wandb"\n')
    trained("--config", "r.toml", *RUN, "--weights-dir", "run", "--report-to", "none")
    assert not wandb.begun
    trained("--config", "r.toml", *RUN)
    assert len(wandb.begun) == 1
    alone = invoke("--report-to", "none", "wandb")
    assert alone.exit_code == 2
    assert "expected none alone" in alone.output


def test_an_error_of_theirs_is_one_warning_and_the_run_is_as_without_them(wandb):
    trained(*RUN, "--weights-dir", "plain")
    wandb.fails_at = 4
    result = trained(*RUN, "--weights-dir", "run", "--report-to", "wandb", is_reported=False)
    warned = [line for line in result.output.splitlines() if "⚠️" in line]
    assert warned == [
        "⚠️ wandb gets no more of this run: the line is dead at 5. The run goes on; all is in "
        "run/metrics.jsonl too."
    ]
    one, other = (mx.load(f"{run}/weights.safetensors") for run in ("plain", "run"))
    assert all(mx.array_equal(one[name], other[name]) for name in one)
    assert [row["step"] for row in rows_of("plain")] == [row["step"] for row in rows_of("run")]


def test_a_run_that_an_error_ends_is_not_called_whole(wandb):
    rate = ("--learning-rate", 1e38, "--warmup", 0)
    result = invoke(*RUN, *rate, "--weights-dir", "run", "--report-to", "wandb")
    assert "Training stopped at step" in result.output
    assert wandb.ends == [1]


def test_what_cannot_begin_is_a_sentence(wandb):
    wandb.cannot_begin = "No API key."
    result = invoke(*RUN, "--report-to", "wandb")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "Error: wandb could not begin: No API key. Log in (wandb login), set WANDB_MODE=offline in "
        "the environment, or leave out --report-to wandb."
    )


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("tensorboard", "tensorboardX")])
def test_what_is_not_installed_is_a_sentence_before_anything_begins(
    workplace, monkeypatch, name, package
):
    monkeypatch.setattr(reports, "find_spec", lambda module: None)
    result = invoke("--report-to", name)
    assert result.exit_code == 2
    assert f"{name} needs a package that is not installed: pip install {package}" in result.output
    assert "loading" not in result.output
    assert not (workplace / "runs").exists()


# TensorBoard


def events_of(run):
    """Those of each event file, in the order in which TensorBoard reads them."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(Path(run, "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def scalars_of(run):
    """By step, as TensorBoard shows them: a start takes away what it finds from its step on."""
    shown = []
    for event in events_of(run):
        if event.session_log.status:
            shown = [point for point in shown if point[0] < event.step]
        for value in event.summary.value:
            if value.tag != "config/text_summary":
                shown.append((event.step, value.tag, value.simple_value))
    assert len({point[:2] for point in shown}) == len(shown), "two values at one step"
    by_step = {}
    for step, tag, value in shown:
        by_step.setdefault(step, {})[tag] = value
    return by_step


def test_tensorboard_gets_every_row_and_the_configuration():
    pytest.importorskip("tensorboardX")
    result = trained(*RUN, "--weights-dir", "run", "--report-to", "tensorboard")
    expected = by_step(rows_of("run"))
    shown = scalars_of("run")
    assert shown.keys() == expected.keys()
    for step, row in expected.items():
        assert shown[step] == pytest.approx(row, rel=1e-6)
    texts = [
        value.tensor.string_val[0].decode()
        for event in events_of("run")
        for value in event.summary.value
        if value.tag == "config/text_summary"
    ]
    assert any("num_iters = 9" in text for text in texts)
    assert "📡 reported to tensorboard: tensorboard --logdir run" in result.output


def test_tensorboard_shows_each_step_of_a_resumed_run_once():
    pytest.importorskip("tensorboardX")
    trained(*RUN, "--weights-dir", "run", "--report-to", "tensorboard")
    kill_after("run", 4, "killed")
    trained("--resume", "killed")
    assert len(list(Path("killed/tensorboard").iterdir())) == 2
    expected = by_step(rows_of("killed"))
    shown = scalars_of("killed")
    assert {step: row["train_loss"] for step, row in shown.items() if step} == pytest.approx(
        {step: row["train_loss"] for step, row in expected.items() if step}, rel=1e-6
    )
    speeds = {step: row["residues_per_second"] for step, row in expected.items() if step}
    assert {step: row["residues_per_second"] for step, row in shown.items() if step} == (
        pytest.approx(speeds, rel=1e-6)
    ), "those of the second time"


def test_a_disk_that_is_full_for_tensorboard_ends_only_the_report(monkeypatch):
    writers = pytest.importorskip("tensorboardX.event_file_writer")
    written = writers.EventsWriter.write_event

    def full(self, event):
        if event.step >= 5:
            raise OSError(28, "No space left on device")
        return written(self, event)

    monkeypatch.setattr(writers.EventsWriter, "write_event", full)
    where = ("--weights-dir", "run", "--report-to", "tensorboard")
    result = trained(*RUN, *where, is_reported=False)
    assert result.output.count("tensorboard gets no more of this run") == 1
    assert rows_of("run")[-1]["step"] == 9


@pytest.mark.slow
def test_the_genuine_wandb_keeps_a_run_without_a_network():
    pytest.importorskip("wandb")
    code = "from mlx_esm_kernels.commands.train import command; command()"
    command = [sys.executable, "-c", code, *(str(argument) for argument in RUN)]
    command += ["--report-to", "wandb", "--weights-dir", "run"]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "wandb sync run/wandb/offline-run-" in result.stdout
    (offline,) = Path("run/wandb").glob("offline-run-*/run-*.wandb")
    assert b"valid_perplexity" in offline.read_bytes()
    assert Path("run/wandb/mlx-esm-run-id").read_text().strip() in offline.name
