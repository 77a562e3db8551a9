"""The ops with the kernels of each instruction set that this machine executes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = (
    *("test_masked_attention.py", "test_positional_embedding.py", "test_rotary_op.py"),
    *("test_linear.py", "test_int8_linear.py"),
)


TARGETS = ["baseline", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "avx512_amx"]
TARGETS += ["neon_dotprod", "neon_bf16"]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_tests_of_the_ops_pass_with_each_instruction_set(target: str) -> None:
    environment = os.environ | {"MLX_ESM_KERNELS_CPU_TARGET": target}
    one_call = "import mlx.core as mx; from mlx_esm_kernels import linear; "
    one_call += "mx.eval(linear(mx.ones((1, 8)), mx.ones((8, 8))))"
    tried = subprocess.run(
        [sys.executable, "-c", one_call],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if f"on this machine; got {target}" in tried.stderr:
        pytest.skip(f"this machine does not execute {target}")
    assert tried.returncode == 0, tried.stderr
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow"]
    run = subprocess.run(
        [*command, *(str(TESTS / file) for file in FILES)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:]
