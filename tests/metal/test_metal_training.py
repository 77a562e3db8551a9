"""A training run through the Metal kernels: the same losses as on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from metal_emulator import Emulator, emulating

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.esm1 import ESM1Config

CONFIG = ESM1Config(num_layers=2, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)


def write_proteins(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    records = (
        f">p{i}\n{''.join(rng.choice(letters, rng.integers(5, 60)))}\n" for i in range(count)
    )
    path.write_text("".join(records))


def losses_of_run(folder: Path) -> list[float]:
    arguments = ["--data", "proteins.fasta", "--num-iters", "5", "--tokens-per-batch", "192"]
    result = CliRunner().invoke(
        train.command, [*arguments, "--valid-every", "1", "--weights-dir", str(folder)]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("train_loss", "valid_loss")
    return [row[name] for row in rows for name in names if name in row]


@pytest.mark.slow
def test_a_training_run_on_the_emulated_gpu_has_the_losses_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train.PRESETS, "small", CONFIG)
    write_proteins(tmp_path / "proteins.fasta", 40)
    on_cpu = losses_of_run(tmp_path / "cpu")

    device = Emulator()
    with emulating(device.execute):
        emulated = losses_of_run(tmp_path / "emulated")

    assert len(on_cpu) == 5 + 6  # of steps, and of the validations before and after each
    assert emulated == pytest.approx(on_cpu, rel=1e-5)
    trained = {"masked_attention_fwd", "masked_attention_bwd_dq", "masked_attention_bwd_dkv"}
    assert trained <= set(device.counts)
    assert any(name.startswith("positional_embedding_bwd") for name in device.counts)
