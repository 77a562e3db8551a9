"""The file that gives a plan to MLX's Metal encoder, run against a stand-in that writes down."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlx

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
PACKAGE = Path(next(iter(mlx.__path__)))

ASKED = """\
keep 30
library lib_a: text a
kernel f of lib_a, lib_a_f_0_true_2_m3_1_f3f000000: 0=true 2=-3 1=0.5f
use f
read 11 at 0
write 20 at 2
write 30 at 5
bytes abc at 3
run 5 6 7 x 64 1 1
library lib_b: text b
kernel g of lib_b, g:
use g
read 30 at 1
write 21 at 0
read 20 at 4
read 10 at 7
run 1 2 1 x 1024 1 1
[metal] g needs 1056 threads in a threadgroup; this GPU gives it at most 1024.
"""


def test_a_plan_is_encoded_launch_by_launch_as_it_says(tmp_path: Path) -> None:
    sources = [
        HERE / "encoder" / "encode_plan.cpp",
        CSRC / "metal/encode.cpp",
        CSRC / "metal/plan.cpp",
    ]
    folders = [HERE / "encoder", CSRC, PACKAGE / "include"]
    library = PACKAGE / "lib"
    command = ["c++", "-std=c++20", "-o", tmp_path / "encode", *sources]
    command += [f"-I{folder}" for folder in folders]
    command += [f"-L{library}", "-lmlx", f"-Wl,-rpath,{library}"]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "encode"], capture_output=True, text=True, check=True)
    assert ran.stdout == ASKED
