"""The C++ ops on plain memory, compiled with sanitisers and run against naive loops.

The tiles of AMX are emulated (emulated/amx.h): any machine with AVX-512 runs what uses them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ["baseline", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "avx512_amx"]
TARGETS += ["neon_dotprod", "neon_bf16"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    # That of this environment, where it has one: the system's may be too old.
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    subprocess.run(
        [
            *(cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(build)),
            *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"),
            *("-DMLX_ESM_KERNELS_EXTENSION=OFF", "-DMLX_ESM_KERNELS_TESTS=ON"),
            "-DMLX_ESM_KERNELS_EMULATE_AMX=ON",
            f"-DMLX_ESM_KERNELS_SANITIZE={request.param}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ],
        check=True,
    )
    subprocess.run([cmake, "--build", str(build)], check=True)
    return build / "cpu_ops_test"


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("target", TARGETS)
def test_ops_are_right_and_the_sanitiser_is_silent(
    program: Path, target: str, threads: str
) -> None:
    run = subprocess.run(
        [program],
        env=os.environ
        | {"MLX_ESM_KERNELS_CPU_TARGET": target, "MLX_ESM_KERNELS_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    if f"on this machine; got {target}" in run.stderr:
        pytest.skip(f"this machine does not execute {target}")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.strip().endswith(" passed, 0 failed")
