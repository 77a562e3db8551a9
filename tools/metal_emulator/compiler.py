"""Metal source to a shared library that the emulator runs, kept by a hash of all inputs."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import ziglang

from metal_emulator.compiled_rules import check_compiled
from metal_emulator.translate import Kernel, MetalCompileError, translate

_HERE = Path(__file__).parent
_ZIG = str(Path(ziglang.__file__).parent / "zig")

_LANGUAGE = shlex.split(
    """-triple x86_64-unknown-linux-gnu -target-cpu x86-64-v2 -target-feature +avx
    -target-feature +f16c -x cl -cl-std=clc++2021 -cl-ext=+all,-cl_khr_fp64,-__opencl_c_fp64
    -cl-single-precision-constant -fdeclspec -nostdsysteminc -nobuiltininc -fnative-half-type
    -fnative-half-arguments-and-returns -ffloat16-excess-precision=none
    -fbfloat16-excess-precision=none -ffp-contract=off -relaxed-aliasing
    -Wall -Wno-unused-function -Wno-unused-variable -Wno-unused-local-typedef
    -Wno-duplicate-decl-specifier -Wno-unused-const-variable -Wno-unused-value
    -Werror=uninitialized -Werror=conditional-uninitialized -Werror=sometimes-uninitialized
    -Werror=return-type -Werror=array-bounds"""
)
# Nothing becomes wider than 16 bytes: neither vectoriser runs at -O1.
_CODE = shlex.split(
    """-O1 -mrelocation-model pic -pic-level 2 -debug-info-kind=line-tables-only
    -fsanitize=array-bounds,integer-divide-by-zero"""
)
_CHECKS = shlex.split(
    """-fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0
    -mllvm -tsan-instrument-read-before-write=1"""
)
_SPACES = {
    "__attribute__((opencl_global_device))": "device",
    "__attribute__((opencl_global_host))": "constant",
    "__global_device": "device",
    "__global_host": "constant",
    "__private": "thread",
    "__local": "threadgroup",
}


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
    """Where compiled libraries are kept: MLX_ESM_KERNELS_EMULATOR_CACHE, or the user's cache."""
    folder = os.environ.get("MLX_ESM_KERNELS_EMULATOR_CACHE")
    path = Path(folder or platformdirs.user_cache_path("mlx-esm-kernels") / "metal_emulator")
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def _emulator_digest() -> bytes:
    hashed = hashlib.sha256()
    for path in sorted(_HERE.rglob("*")):
        unused = path.suffix in (".pyc", ".md") or "runtime" in path.parts[-2:-1]
        if path.is_file() and not unused:
            hashed.update(path.read_bytes())
    hashed.update((_HERE / "runtime" / "abi.h").read_bytes())
    hashed.update(str(os.stat(_ZIG).st_size).encode())
    return hashed.digest()


def _digest(text: str) -> str:
    return hashlib.sha256(_emulator_digest() + text.encode()).hexdigest()[:24]


def _run(arguments: list[str], text: str) -> str:
    """Standard output of the Zig tool-chain for a text on standard input."""
    done = subprocess.run(
        [_ZIG, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MetalCompileError(f"the source does not compile:\n{_readable(done.stderr)[:4000]}")
    return done.stdout


def _readable(messages: str) -> str:
    for theirs, ours in _SPACES.items():
        messages = messages.replace(theirs, ours)
    messages = re.sub(r"'in_one_space<.*>' is unavailable: ", "", messages)
    return re.sub(r"(kernel|<stdin>)(\.metal)?:(\d+):\d+: ", r"line \3: ", messages)


def preprocess(source: str) -> str:
    """The source with its macros expanded.

    Raises:
        MetalCompileError: a byte is not ASCII, or a file is included that Metal does not have.
    """
    for number, line in enumerate(source.splitlines(), 1):
        if not line.isascii():
            raise MetalCompileError(f"line {number}: Metal sources are ASCII.")
        if re.match(r"\s*#\s*include\s*\"", line):
            raise MetalCompileError(f"line {number}: sources are self-contained: {line.strip()}.")
    flags = ["-E", "-x", "c++", "-std=c++17", "-undef", "-nostdsysteminc", "-nobuiltininc"]
    defines = ["-D__METAL_VERSION__=310", "-D__METAL__=1"]
    include = f"-I{_HERE / 'msl' / 'include'}"
    return _run(["clang", "-cc1", *flags, *defines, include, "-"], source)


@functools.lru_cache(maxsize=64)
def _check_compiled(unit: str, suspects: tuple[str, ...]) -> None:
    plain = ["-O0", "-disable-llvm-passes", "-debug-info-kind=line-tables-only", "-emit-llvm"]
    code = _run(["clang", "-cc1", *_LANGUAGE, *plain, "-o", "-", "-"], unit)
    check_compiled(code, suspects)


def compile_metal(source: str, fill: str = "pattern", checked: bool = True) -> Library:
    """Compile a complete Metal source.

    Args:
        source: the text that Metal would get.
        fill: "pattern" or "zero", what variables hold that nothing has set.
        checked: whether the runtime sees every load and store.

    Raises:
        MetalCompileError: Metal would refuse it, or the emulator does not know what it uses.
    """
    translation = translate(preprocess(source))
    library = cache_folder() / f"{_digest(f'{fill} {checked} {source}')}.so"
    if not library.exists():
        unit = f'#include "{_HERE / "msl" / "msl.h"}"\n{translation.text}'
        _check_compiled(unit, tuple(translation.recursive))
        code = [*_CODE, *(_CHECKS if checked else [])]
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made, shared = f"{folder}/kernel.o", Path(folder) / "kernel.so"
            fills = [f"-ftrivial-auto-var-init={fill}", "-emit-obj", "-o", made, "-"]
            _run(["clang", "-cc1", *_LANGUAGE, *code, *fills], unit)
            _run(["ld.lld", "-shared", "-Bsymbolic", "-o", str(shared), made], "")
            shared.replace(library)
    return Library(library, {k.name: k for k in translation.kernels}, translation.constants)
