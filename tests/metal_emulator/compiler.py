"""Metal source to a shared library that the emulator's runtime runs, kept by a hash of all inputs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metal_emulator.metal_translator import Kernel, MetalCompileError, translate

_HERE = Path(__file__).parent
_ZIG = [sys.executable, "-m", "ziglang"]

# Every vector access as scalars or 16 bytes, so that none escapes the instrumentation.
_FLAGS = """-triple x86_64-unknown-linux-gnu -target-cpu x86-64-v2 -x cl -cl-std=clc++2021
    -cl-ext=+all,-cl_khr_fp64,-__opencl_c_fp64 -fdeclspec -nostdsysteminc -nobuiltininc
    -fnative-half-type -fnative-half-arguments-and-returns -O1 -ffp-contract=off
    -mrelocation-model pic -pic-level 2 -debug-info-kind=line-tables-only
    -fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0
    -Wall -Wno-unused-function -Wno-unused-variable -Wno-unused-local-typedef
    -Werror=uninitialized -Werror=conditional-uninitialized -Werror=sometimes-uninitialized
    -emit-obj""".split()


@dataclass(frozen=True)
class Library:
    """A compiled source.

    Attributes:
        path: of the shared library.
        kernels: by name.
        constants: types of the function constants, by index.
    """

    path: Path
    kernels: dict[str, Kernel]
    constants: dict[int, str]


def cache_folder() -> Path:
    """Where compiled libraries are kept: MLX_ESM_KERNELS_EMULATOR_CACHE, or a temporary folder."""
    folder = os.environ.get("MLX_ESM_KERNELS_EMULATOR_CACHE")
    path = Path(folder) if folder else Path(tempfile.gettempdir()) / "mlx_esm_kernels_emulator"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _digest(text: str) -> str:
    hashed = hashlib.sha256(text.encode())
    for path in sorted(_HERE.glob("*/*.h")) + sorted(_HERE.glob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:24]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MetalCompileError(f"the source does not compile:\n{done.stderr[:4000]}")
    return done.stdout


def compile_metal(source: str, fill: str = "pattern") -> Library:
    """Compile a complete Metal source.

    Args:
        source: the text that Metal would get.
        fill: "pattern" or "zero", what variables hold that nothing has set.

    Raises:
        MetalCompileError: Metal would refuse it, or the emulator does not know what it uses.
    """
    if not source.isascii():
        line = next(i for i, text in enumerate(source.splitlines(), 1) if not text.isascii())
        raise MetalCompileError(f"line {line}: Metal sources are ASCII.")
    built = cache_folder() / _digest(fill + source)
    metal = built.with_suffix(".metal")
    metal.write_text(source)
    preprocess = [*_ZIG, "clang", "-E", "-x", "c++", "-nostdinc", f"-I{_HERE / 'msl'}"]
    text = _run([*preprocess, "-D__METAL_VERSION__=310", "-D__METAL__", str(metal)])
    translation = translate(text)
    library = built.with_suffix(".so")
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            unit, made = Path(folder) / "kernel.cl", Path(folder) / "kernel.o"
            unit.write_text(f'#include "{_HERE}/msl/metal.h"\n{translation.text}')
            fills = [f"-ftrivial-auto-var-init={fill}"]
            _run([*_ZIG, "clang", "-cc1", *_FLAGS, *fills, "-o", str(made), str(unit)])
            shared = Path(folder) / "kernel.so"
            _run(["cc", "-shared", "-o", str(shared), str(made)])
            shared.replace(library)
    return Library(library, {k.name: k for k in translation.kernels}, translation.constants)
