"""A report from a Mac beside the predictions for its chip. All times in here are invented."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metal_model
import numpy as np
import pytest
from click.testing import CliRunner, Result
from metal import measured
from metal.roofline import Shape

Compare = Callable[..., Result]

PACKED = [[20, 12], [32]]


def timing(lengths: str, direction: str, ours: float, mlx: float, dim: int = 64) -> dict[str, Any]:
    segments = {"dense": None, "padded": [[32], [9]], "packed": PACKED}[lengths]
    row: dict[str, Any] = {"shape": [2, 1, 32, dim], "lengths": lengths, "segments": segments}
    return row | {"dtype": "float32", "direction": direction, "ours": ours, "mlx": mlx}


INVENTED: dict[str, Any] = {
    "format": "mlx-esm-kernels doctor 1",
    "versions": {"mlx": "0.32.4"},
    "system": "macOS-26.0-arm64",
    "chip": {"name": "Apple M1", "architecture": "g13", "generation": 13, "memory_gb": 16.0},
    "device": "metal",
    "checks": [],
    "problems": [],
    "timings": [
        timing("dense", "forward", 2e-3, 1e-3),
        timing("dense", "forward+backward", 4e-3, 5e-3),
        timing("padded", "forward+backward", 4e-3, 8e-3),
        timing("packed", "forward+backward", 4e-3, 2e-3),
        timing("dense", "forward+backward", 3e-3, 6e-3, dim=16),
    ],
}


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """The command on a report: the invented one, with these of its fields changed."""

    def run(content: Any = INVENTED, **changed: Any) -> Result:
        file = tmp_path / "doctor.json"
        file.write_text(json.dumps({**content, **changed} if changed else content))
        return CliRunner().invoke(metal_model.main, ["--measured", str(file)])

    return run


def test_every_time_stands_beside_its_prediction(compare: Compare) -> None:
    run = compare()
    assert run.exit_code == 0, run.output
    lines = run.output.splitlines()
    assert lines[0] == "Measured on Apple M1, macOS-26.0-arm64; mlx 0.32.4."
    assert "MLX over ours 0.50 measured" in lines[1]
    assert sum(line.endswith(" measured") for line in lines) == 2 * len(INVENTED["timings"])
    assert sum(line.endswith("predicted over measured") for line in lines) == 5
    fitted = [line.split()[:3] for line in lines if "times or over" in line]
    assert fitted == [
        [side, direction, "float32"]
        for side in ("MLX", "ours")
        for direction in ("forward", "forward+backward")
    ]


def test_it_says_where_dispatch_takes_the_slower_side(compare: Compare) -> None:
    lines = compare().output.splitlines()
    (head,) = [at for at, line in enumerate(lines) if line.startswith("Of 4 calls")]
    assert lines[head].endswith("takes the slower side in 2:")
    assert [" ".join(line.split()) for line in lines[head + 1 : head + 3]] == [
        "2x1x32x64 dense float32 forward+backward MLX is taken, ours was 1.25 x as fast",
        "2x1x32x64 packed float32 forward+backward ours is taken, MLX was 2.00 x as fast",
    ]
    assert not lines[head + 3]


def test_a_rule_that_is_right_everywhere_is_left_alone(compare: Compare) -> None:
    run = compare(timings=[timing("padded", "forward+backward", 1e-3, 2e-3)])
    assert "takes the slower side in 0.\n" in run.output


def test_the_share_that_explains_the_times_is_found(compare: Compare) -> None:
    """Times of a chip on which ours reach 0.4 of their roofs and MLX 0.8, but for a spread of 2."""
    chip = measured.chip_named("Apple M1")
    assert chip
    rows = []
    for lengths, factor in (("dense", 2.0), ("padded", 0.5)):
        row = timing(lengths, "forward", 1.0, 1.0)
        ours, mlx = measured.predicted(chip, measured.timing_of(row))
        rows.append(row | {"ours": factor * ours / 0.4, "mlx": mlx / 0.8})
    output = compare(timings=rows).output
    assert "ours forward          float32  0.40, times or over 2.00 (2 calls" in output
    assert "MLX  forward          float32  0.80, times or over 1.00 (2 calls" in output


def test_segments_become_ids_and_the_rest_padding() -> None:
    ids = measured.ids_of([[2, 1], [], [4]], Shape(3, 1, 4, 8))
    np.testing.assert_array_equal(ids, [[1, 1, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1]])


def test_an_unknown_chip_still_shows_what_was_measured(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")  # nor is an emulator needed
    run = compare(chip=INVENTED["chip"] | {"name": "Apple M9 Max"})
    assert run.exit_code == 0, run.output
    assert "MLX over ours 2.00 measured" in run.output
    assert "takes the slower side in 2:" in run.output
    assert "of Apple M9 Max are not known" in run.output
    assert "Known are M1, M1 Pro," in run.output
    assert "predicted over measured" not in run.output


def test_a_head_dim_without_a_kernel_has_no_prediction(compare: Compare) -> None:
    run = compare(timings=[timing("dense", "forward", 1e-3, 2e-3, dim=12)])
    assert run.exit_code == 0, run.output
    assert "no kernel of ours serves this D, so nothing is predicted" in run.output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "doctor.json is not what `mlx-esm doctor --json FILE` writes"),
        ({"rows": []}, "\"format\" must be 'mlx-esm-kernels doctor 1'; got 'None'"),
        (INVENTED | {"format": "mlx-esm-kernels doctor 2"}, "got 'mlx-esm-kernels doctor 2'"),
        (INVENTED | {"chip": None}, "was written without a Metal GPU"),
        (INVENTED | {"device": "metal-emulator"}, "(device 'metal-emulator')"),
        (INVENTED | {"timings": []}, "holds no timings"),
        (INVENTED | {"timings": [{}]}, "timing 0 is not one (KeyError('shape'))"),
    ],
)
def test_what_is_no_report_of_a_mac_is_refused(compare: Compare, content: Any, said: str) -> None:
    run = compare(content)
    assert run.exit_code == 1
    assert said in run.output
    assert run.output.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shape": [1, 2, 3]}, "missing 1 required"),
        ({"shape": [2, 1, 0, 64]}, "sizes must be positive"),
        ({"lengths": "long"}, "expected one of dense, padded, packed; got long"),
        ({"dtype": "float64"}, "got float64"),
        ({"direction": "backward"}, "got backward"),
        ({"ours": 0.0}, "seconds must be positive"),
        ({"mlx": float("nan")}, "seconds must be positive"),
        ({"lengths": "padded", "segments": [[9]]}, "segments of 2 rows were expected; got 1"),
        ({"lengths": "packed", "segments": [[33], []]}, "at most 32 tokens were expected"),
        ({"lengths": "padded", "segments": None}, "TypeError"),
    ],
)
def test_a_timing_that_is_none_is_named(
    compare: Compare, changed: dict[str, Any], said: str
) -> None:
    good = timing("dense", "forward", 1e-3, 1e-3)
    run = compare(timings=[good, good | changed])
    assert run.exit_code == 1
    assert "timing 1 is not one" in run.output
    assert said in run.output


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    file.write_bytes(b"\xff{")
    run = CliRunner().invoke(metal_model.main, ["--measured", str(file)])
    assert run.exit_code == 1
    assert "it is not JSON" in run.output
