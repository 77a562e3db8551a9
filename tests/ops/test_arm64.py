"""The C++ ops on plain memory, built here for arm64 Linux and run by QEMU against naive loops.

It needs QEMU's qemu-aarch64; without it the tests are skipped, and say so, unless
MLX_ESM_KERNELS_QEMU=required, as .ci/run has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import arm64_clang
import pytest
from arm64_instructions import products_in
from cross_compilers import run, write_tools

ROOT = Path(__file__).parents[2]
TARGETS = ["baseline", "neon_dotprod", "neon_bf16"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def qemu() -> str:
    path = shutil.which("qemu-aarch64")
    if path is None:
        why = "qemu-aarch64 is missing: it comes with Debian's qemu-user"
        if os.environ.get("MLX_ESM_KERNELS_QEMU") == "required":
            pytest.fail(why)
        pytest.skip(why)
    return path


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm64")
    compiler = f'exec "{sys.executable}" "{arm64_clang.__file__}" "$@"'
    tools = write_tools(folder / "tools", {"c++": compiler})
    # That of this environment, where it has one: the system's may be too old.
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    configure = [cmake, "-G", "Ninja", "-S", ROOT, "-B", folder / "build"]
    configure += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    configure += [f"-DCMAKE_CXX_COMPILER={tools / 'c++'}", f"-DCMAKE_AR={tools / 'ar'}"]
    # Its trials need not be linked, with libraries that Zig would compile for them alone.
    configure += [f"-DCMAKE_RANLIB={tools / 'ranlib'}"]
    configure += ["-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"]
    configure += ["-DCMAKE_EXE_LINKER_FLAGS=-static", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    configure += ["-DMLX_ESM_KERNELS_EXTENSION=OFF", "-DMLX_ESM_KERNELS_TESTS=ON"]
    configure += ["-DMLX_ESM_KERNELS_EMULATE_BLAS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    failure = "The build for arm64 Linux failed."
    run(configure, failure)
    run([cmake, "--build", folder / "build", "-j2"], failure)
    return folder / "build"


def emulated(
    qemu: str, build: Path, target: str, cpu: str = "max"
) -> subprocess.CompletedProcess[str]:
    variables = {"MLX_ESM_KERNELS_CPU_TARGET": target, "MLX_ESM_KERNELS_NUM_THREADS": "2"}
    command = [qemu, "-cpu", cpu, build / "cpu_ops_test"]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_ops_are_right_on_arm64(qemu: str, build: Path, target: str) -> None:
    done = emulated(qemu, build, target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith(" passed, 0 failed")


@pytest.mark.parametrize(
    ("cpu", "has"),
    [
        ("cortex-a72", "baseline"),
        ("neoverse-n1", "baseline or neon_dotprod"),
        ("max", "baseline or neon_dotprod or neon_bf16"),
    ],
)
def test_a_processor_is_offered_what_it_executes(
    qemu: str, build: Path, cpu: str, has: str
) -> None:
    done = emulated(qemu, build, "avx2", cpu)
    assert done.returncode != 0
    assert f"CPU_TARGET must be {has} on this machine; got avx2." in done.stderr


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ("baseline", "int8_linear/cpu/kernels.cpp", set()),
        ("neon_dotprod", "int8_linear/cpu/kernels.cpp", {"sdot"}),
        ("neon_bf16", "int8_linear/cpu/kernels.cpp", {"smmla"}),
        ("neon_bf16", "linear/cpu/bfloat16_quads.cpp", {"bfmmla"}),
    ],
)
def test_products_are_made_by_the_instructions_for_them(
    build: Path, target: str, source: str, expected: set[str]
) -> None:
    compiled = build / "CMakeFiles" / f"kernels_{target}.dir" / "csrc" / f"{source}.o"
    assert products_in(compiled) == expected
