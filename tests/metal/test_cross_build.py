"""The extension for macOS, built and linked here against MLX's own library for macOS."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cross_build
import mlx.core as mx
import pytest
from arm64_instructions import products_in
from cross_build import ROOT, Build
from macholib import mach_o
from macholib.MachO import MachO
from macholib.SymbolTable import SymbolTable

from mlx_esm_kernels import _ext

pytestmark = pytest.mark.slow

CPU_ARM64 = 0x0100000C
PLATFORM_MACOS = 1
LOADS = (mach_o.LC_LOAD_DYLIB, mach_o.LC_LOAD_WEAK_DYLIB, mach_o.LC_REEXPORT_DYLIB)


@dataclass(frozen=True)
class Binary:
    cpu: int
    platform: int
    oldest_macos: str
    libraries: list[str]
    rpaths: list[str]
    exported: set[str]
    imported: dict[str, str]  # name to the library that has it


@cache
def read(path: Path) -> Binary:
    file = MachO(str(path))
    (header,) = file.headers
    libraries, rpaths = [], []
    for load, command, data in header.commands:
        if load.cmd in LOADS:
            libraries.append(data.rstrip(b"\0").decode())
        elif load.cmd == mach_o.LC_RPATH:
            rpaths.append(data.rstrip(b"\0").decode())
        elif load.cmd == mach_o.LC_BUILD_VERSION:
            version = command
    names = dict(enumerate(libraries, start=1))
    symbols = SymbolTable(file)
    return Binary(
        header.header.cputype,
        version.platform,
        f"{version.minos >> 16}.{version.minos >> 8 & 255}",
        libraries,
        rpaths,
        {name.decode() for _, name in symbols.extdefsyms},
        {name.decode(): names.get(s.n_desc >> 8, "any") for s, name in symbols.undefsyms},
    )


OLDEST = "14.0"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return cross_build.build(OLDEST, tmp_path_factory.mktemp("macos"))


@pytest.fixture(scope="module", params=[OLDEST, "15.0", "26.0"])
def built(
    compiled: Build, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Build:
    if request.param == OLDEST:
        return compiled
    return cross_build.relink(compiled, request.param, tmp_path_factory.mktemp("macos"))


def imported_from(binary: Binary, belongs: Callable[[str], bool]) -> set[str]:
    return {name for name, library in binary.imported.items() if belongs(library)}


def test_a_python_module_for_apple_silicon_comes_out(built: Build) -> None:
    binary = read(built.extension)
    assert (binary.cpu, binary.platform) == (CPU_ARM64, PLATFORM_MACOS)
    assert binary.oldest_macos == built.macos
    assert "_PyInit__ext" in binary.exported


def test_it_finds_mlx_beside_itself_and_needs_nothing_else_that_is_not_the_systems(
    built: Build,
) -> None:
    binary = read(built.extension)
    others = [x for x in binary.libraries if not x.startswith(("/usr/lib/", "/System/Library/"))]
    assert sorted(others) == ["@executable_path/python", "@rpath/libmlx.dylib"]
    assert binary.rpaths == ["@loader_path/../mlx/lib"]


def test_plans_are_encoded_with_mlx_and_mlx_has_every_name(built: Build) -> None:
    wanted = imported_from(read(built.extension), lambda x: x == "@rpath/libmlx.dylib")
    assert wanted <= read(built.mlx / "lib" / "libmlx.dylib").exported
    for member in ("get_library", "get_kernel", "get_command_encoder", "dispatch_threadgroups"):
        assert any("5metal" in name and member in name for name in wanted), member


def test_the_one_for_the_oldest_macos_finds_every_name_in_the_mlx_of_later_ones(
    compiled: Build, built: Build
) -> None:
    """One wheel serves them all."""
    wanted = imported_from(read(compiled.extension), lambda x: x == "@rpath/libmlx.dylib")
    assert wanted
    assert wanted <= read(built.mlx / "lib" / "libmlx.dylib").exported


def test_of_apples_frameworks_it_takes_only_what_mlx_itself_takes(built: Build) -> None:
    frameworks = imported_from(read(built.extension), lambda x: x.startswith("/System/"))
    assert frameworks == {"_objc_msgSend", "_cblas_sgemm$NEWLAPACK"}
    assert frameworks <= set(read(built.mlx / "lib" / "libmlx.dylib").imported)


def test_of_the_interpreter_it_takes_python_names_alone(built: Build) -> None:
    names = imported_from(read(built.extension), lambda x: "python" in x)
    assert names
    assert all(re.match("__?Py", name) for name in names)


def test_the_baseline_of_a_mac_multiplies_bytes_by_dot_products(compiled: Build) -> None:
    kernels = compiled.folder / "CMakeFiles" / "kernels_baseline.dir" / "csrc"
    assert products_in(kernels / "int8_linear" / "cpu" / "kernels.cpp.o") == {"sdot"}


@pytest.mark.parametrize(
    ("declared", "called", "links"),
    [
        ("namespace mlx::core { void synchronize(); }", "mlx::core::synchronize()", True),
        ("namespace mlx::core { void copy_gpu(); }", "mlx::core::copy_gpu()", False),
        ('extern "C" int Py_NoSuchThing();', "Py_NoSuchThing()", False),
    ],
)
def test_a_name_that_no_one_has_breaks_the_link(
    compiled: Build, tmp_path: Path, declared: str, called: str, links: bool
) -> None:
    source = tmp_path / "more.cpp"
    source.write_text(
        f'{declared}\nextern "C" __attribute__((visibility("default"))) void more() {{ {called}; }}'
    )
    tools = compiled.folder.parent / "tools"
    subprocess.run([tools / "c++", "-c", source, "-o", tmp_path / "more.o"], check=True)
    commands = ["ninja", "-C", compiled.folder, "-t", "commands", compiled.extension.name]
    printed = subprocess.run(commands, capture_output=True, text=True, check=True).stdout
    link = printed.splitlines()[-1]
    changed = link.replace(
        f"-o {compiled.extension.name}", f"{tmp_path / 'more.o'} -o {tmp_path / 'out.so'}"
    )
    assert changed != link
    linked = subprocess.run(
        changed, shell=True, cwd=compiled.folder, capture_output=True, text=True, check=False
    )
    assert (linked.returncode == 0) == links, linked.stderr
    if not links:
        assert "undefined symbol" in linked.stderr


def shader_files() -> dict[str, bytes]:
    csrc = ROOT / "csrc"
    patterns = ("*/metal/*.metal", "*/metal/params.h", "*/lookup.h", "metal/shading/*.h")
    found = [path for pattern in patterns for path in csrc.glob(pattern)]
    return {str(path.relative_to(csrc)): path.read_bytes() for path in found}


@pytest.mark.usefixtures("emulator")
def test_the_shaders_inside_are_those_that_the_emulator_runs(built: Build) -> None:
    """Each file's whole text, ended by the zero byte, is in both extensions."""
    assert _ext.__file__ is not None
    here, there = Path(_ext.__file__).read_bytes(), built.extension.read_bytes()
    files = shader_files()
    assert len(files) >= 12
    for name, text in files.items():
        for binary in (here, there):
            assert b"\0" + text + b"\0" in binary, name
            assert b"\0" + name.encode() + b"\0" in binary
    lines = {line for text in files.values() for line in text.decode().splitlines()}
    for source in (
        *_ext.attention_sources(64, mx.float32),
        *_ext.embedding_sources(mx.float32),
        *_ext.rotary_sources(mx.float32),
    ):
        ours = [line for line in source.splitlines() if not line.startswith("#define ")]
        assert set(ours) <= lines
