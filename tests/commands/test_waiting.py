"""The share of time in which training waits for its batches, in the record and at the end."""

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.data.masked_batches import MaskedBatches
from mlx_esm_kernels.models.esm1 import ESM1Config
from mlx_esm_kernels.training.step import TrainStep


@pytest.mark.parametrize("slow", [MaskedBatches, TrainStep])
def test_the_share_of_time_that_steps_wait_for_data_is_shown(tmp_path, monkeypatch, slow):
    method = "__next__" if slow is MaskedBatches else "__call__"
    original = getattr(slow, method)

    def slowly(*arguments, **options):
        time.sleep(0.2)
        return original(*arguments, **options)

    monkeypatch.setattr(slow, method, slowly)
    monkeypatch.chdir(tmp_path)
    tiny = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
    monkeypatch.setitem(train.PRESETS, "small", tiny)
    Path("proteins.fasta").write_text(">a\nMKTAYIAKQR\n>b\nGGSGGSW\n>c\nMKVLLW\n")
    options = "--data proteins.fasta --num-iters 3 --tokens-per-batch 128 --weights-dir run"
    result = CliRunner().invoke(train.command, options.split())
    assert result.exit_code == 0, result.output
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    shares = [json.loads(line)["waiting"] for line in lines[1:]]
    said = re.search(r"(\d+)% of the time waiting for data", result.output)
    if slow is MaskedBatches:
        assert min(shares) > 0.5
        assert int(said[1]) > 50
    else:
        assert max(shares) < 0.5
        assert int(said[1]) < 50
