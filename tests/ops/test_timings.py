"""What tuning has timed on a machine, and where it is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from fake_metal import FakeMetal, metal
from metal_emulator import Emulator

from mlx_esm_kernels import _ext
from mlx_esm_kernels.ops import device_cache, timings

__all__ = ["metal"]

DENSE: timings.Timing = {
    "dense": True,
    "length": 512,
    "forward": [1.0, 2.0],
    "forward_backward": [3.0, 4.0],
}
LONGER: timings.Timing = {**DENSE, "length": 1024}
PADDED: timings.Timing = {**DENSE, "dense": False}


def test_a_later_process_finds_what_was_kept(metal: FakeMetal) -> None:
    assert timings.load(64, mx.float32) == []
    timings.keep(64, mx.float32, [DENSE, PADDED])
    assert timings.load(64, mx.float32) == [DENSE, PADDED]
    metal.new_process()
    assert timings.load(64, mx.float32) == [DENSE, PADDED]
    assert timings.load(64, mx.float16) == timings.load(72, mx.float32) == []


def test_the_same_length_is_replaced_and_others_stay(metal: FakeMetal) -> None:
    timings.keep(64, mx.float32, [DENSE, LONGER, PADDED])
    again: timings.Timing = {**DENSE, "forward": [9.0, 9.0]}
    timings.keep(64, mx.float32, [again])
    metal.new_process()
    assert timings.load(64, mx.float32) == [again, LONGER, PADDED]


@pytest.mark.parametrize("what", ["chip", "source"])
def test_on_another_chip_or_source_nothing_is_known(metal: FakeMetal, what: str) -> None:
    timings.keep(64, mx.float32, [DENSE])
    metal.new_process()
    if what == "chip":
        metal.chip["name"] = "Apple M2"
    else:
        metal.source = "kernel void other() {}"
    assert timings.load(64, mx.float32) == []


def test_tiles_in_force_hide_no_timing_and_stay_in_force(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "_known", {})
    timings.keep(16, mx.float32, [DENSE])
    built_in = _ext.attention_tiles("fwd", 16, mx.float32)
    tuned = next(
        tiles
        for tiles in _ext.attention_tile_candidates("fwd", 16, mx.float32)
        if tiles != built_in
    )
    _ext.set_attention_tiles("fwd", 16, mx.float32, tuned)
    try:
        monkeypatch.setattr(timings, "_known", {})
        assert timings.load(16, mx.float32) == [DENSE]
        assert _ext.attention_tiles("fwd", 16, mx.float32) == tuned
    finally:
        _ext.set_attention_tiles("fwd", 16, mx.float32, None)


def test_the_folder_is_read_once_in_a_process(
    metal: FakeMetal, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings.load(64, mx.float32)
    monkeypatch.setattr(device_cache, "read", lambda *_: pytest.fail("read again"))
    assert timings.load(64, mx.float32) == []


def test_without_a_folder_this_process_still_knows(
    metal: FakeMetal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "file"))
    timings.keep(64, mx.float32, [DENSE])
    assert timings.load(64, mx.float32) == [DENSE]


BROKEN: list[Any] = [
    {},
    "text",
    {**DENSE, "forward": [1.0]},
    {**DENSE, "forward_backward": [0.0, 1.0]},
    {**DENSE, "dense": 1},
    {**DENSE, "length": -1},
    {**DENSE, "length": "512"},
]


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_timing_is_refused_and_left_out(
    metal: FakeMetal, broken: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^\[timings\] an entry must have dense, length, and "):
        timings.keep(64, mx.float32, [broken])
    timings.keep(64, mx.float32, [DENSE])
    (file,) = (tmp_path / "timings").glob("*.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"timings": [broken, DENSE]}))
    metal.new_process()
    assert timings.load(64, mx.float32) == [DENSE]
