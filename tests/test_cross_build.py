"""The extension is built for macOS here, with the headers and against the library of MLX's wheels.

Clang, the C and C++ libraries and the linker are those of the ziglang package; Python's headers are
this machine's; the frameworks are stubs with the few symbols that we use.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest
from cross_build import macho

from mlx_esm_kernels import _ext
from mlx_esm_kernels.ops import masked_attention, positional_embedding

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tests/cross_build"
SHADERS = sorted(
    [
        *(ROOT / "csrc").glob("*/*.metal"),
        *(ROOT / "csrc").glob("*/*_params.h"),
        *(ROOT / "csrc/metal/shading").glob("*.h"),
    ]
)
SYSTEM_LIBRARIES = ("/usr/lib/", "/System/Library/Frameworks/")

pytestmark = pytest.mark.slow


@dataclass
class Build:
    version: str
    packages: Path
    folder: Path

    @property
    def library(self) -> Path:
        (library,) = self.folder.glob("_ext*.so")
        return library


def pinned(package: str) -> str:
    """The version that pyproject.toml builds with."""
    found = re.search(rf'"{package}==([^";]+)', (ROOT / "pyproject.toml").read_text())
    assert found, f"pyproject.toml must pin {package}"
    return found[1]


def install_wheels(version: str, into: Path) -> None:
    """MLX for macOS, and nanobind, unpacked; skips the tests where no index can be reached."""
    mlx = pinned("mlx")
    platform = f"macosx_{version.replace('.', '_')}_arm64"
    pip = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(into)),
            *("--platform", platform, "--only-binary=:all:", "--no-deps"),
            *(f"mlx=={mlx}", f"mlx-metal=={mlx}", f"nanobind=={pinned('nanobind')}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    no_network = re.search("NewConnectionError|NameResolutionError|ConnectTimeout", pip.stderr)
    if no_network and "CI" not in os.environ:
        pytest.skip("pip cannot reach the network, and the wheels of MLX for macOS come from there")
    assert pip.returncode == 0, pip.stderr


@pytest.fixture(scope="module", params=["14.0", "15.0"])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    packages = tmp_path_factory.mktemp("packages")
    install_wheels(request.param, packages)
    folder = tmp_path_factory.mktemp("build")
    # That of this environment, where it has one: the system's may be too old.
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    # CMakeLists.txt asks Python where MLX and nanobind are: first those unpacked here.
    environment = os.environ | {"PYTHONPATH": str(packages)}
    subprocess.run(
        [
            *(cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(folder)),
            f"-DCMAKE_TOOLCHAIN_FILE={TOOLS / 'macos.cmake'}",
            f"-DMACOS_VERSION={request.param}",
            f"-DPython_EXECUTABLE={sys.executable}",
            # scikit-build-core says this of the Python that it builds for.
            f"-DSKBUILD_SOABI=cpython-{sys.version_info.major}{sys.version_info.minor}-darwin",
            "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        ],
        env=environment,
        check=True,
    )
    subprocess.run([cmake, "--build", str(folder)], env=environment, check=True)
    return Build(request.param, packages, folder)


def link(build: Build, folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Links a program of one file as the extension is linked, against the same libraries."""
    (folder / "program.cpp").write_text(source)
    include = build.packages / "mlx/include"
    (symbols,) = (build.packages / "nanobind/cmake").glob("darwin-ld-cpython.sym")
    return subprocess.run(
        [
            *(str(build.folder / "tools/c++"), "-std=c++20", "-bundle", "-o", "program.so"),
            *("-isystem", str(include), "-isystem", str(include / "metal_cpp"), "program.cpp"),
            *(str(build.packages / "mlx/lib/libmlx.dylib"), f"-Wl,@{symbols}"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def program(include: str, statement: str) -> str:
    """A C++ file that runs one statement on arrays a and b."""
    return (
        f'#include "mlx/mlx.h"\n#include "{include}"\nnamespace mx = mlx::core;\n'
        '__attribute__((visibility("default"))) void run(mx::array& a, mx::array& b) {\n'
        f"  a = b;\n  {statement}\n}}\n"
    )


def test_extension_is_a_library_for_this_macos(build: Build) -> None:
    library = macho.read_library(build.library.read_bytes())

    assert library.cpu == macho.CPU_ARM64
    assert library.platform == macho.PLATFORM_MACOS
    assert "{}.{}".format(*library.oldest) == build.version
    assert build.library.name.endswith("-darwin.so")


def test_extension_loads_mlx_and_the_system_only(build: Build) -> None:
    library = macho.read_library(build.library.read_bytes())
    loads = [name for name in library.loads if not name.startswith(SYSTEM_LIBRARIES)]

    # "python" stands for the symbols that the interpreter brings when it loads the extension.
    assert sorted(loads) == ["@rpath/libmlx.dylib", "python"]
    assert "@loader_path/../mlx/lib" in library.search


def test_every_source_is_compiled_and_warnings_are_errors(build: Build) -> None:
    commands = json.loads((build.folder / "compile_commands.json").read_text())
    flags = {Path(c["file"]): c["command"].split() for c in commands}
    sources = {*(ROOT / "csrc").rglob("*.cpp"), *(ROOT / "python").glob("*.cpp")}

    assert sources <= flags.keys()
    for source in sources:
        assert {"-Wall", "-Wextra", "-Werror"} <= set(flags[source]), source
        assert "-w" not in flags[source], source
    assert "-DMLX_ESM_KERNELS_METAL=1" in flags[ROOT / "csrc/metal/device.cpp"]


def test_library_holds_every_shader_source_word_for_word(build: Build) -> None:
    binary = build.library.read_bytes()

    assert SHADERS
    for path in SHADERS:
        assert path.read_bytes() + b"\0" in binary, path
        assert str(path.relative_to(ROOT / "csrc")).encode() + b"\0" in binary, path


@pytest.fixture
def launched() -> list[str]:
    """The texts that Metal kernels are compiled from when the ops run, forward and backward."""
    sources: list[str] = []
    _ext.emulate_metal(lambda launches: sources.extend(str(one["source"]) for one in launches))
    q = mx.zeros((1, 1, 40, 16))
    bias = mx.zeros((1, 16))
    tokens, table = mx.ones((1, 40), dtype=mx.int32), mx.zeros((50, 16))

    def attention(q: mx.array, bias: mx.array) -> mx.array:
        return masked_attention(q, q, q, segment_ids=tokens, bias_k=bias, bias_v=bias).sum()

    def embedding(table: mx.array) -> mx.array:
        return positional_embedding(tokens, table, table, padding_idx=0).sum()

    try:
        mx.eval(mx.grad(attention, argnums=(0, 1))(q, bias), mx.grad(embedding)(table))
    finally:
        _ext.emulate_metal(None)
    return sources


def test_what_the_emulator_runs_is_text_of_the_library(build: Build, launched: list[str]) -> None:
    binary = build.library.read_bytes()
    joints = re.compile(r'^(?:#include ".*"|#pragma once)\n', re.MULTILINE)
    pieces = [piece for path in SHADERS for piece in joints.split(path.read_text()) if piece]

    assert all(piece.encode() in binary for piece in pieces)
    assert len(set(launched)) >= 6
    for source in launched:
        rest = source
        for piece in sorted(pieces, key=len, reverse=True):
            rest = rest.replace(piece, "")
        # What the host adds for a variant: its sizes and its element type.
        assert all(line.startswith("#define ") for line in rest.split("\n") if line), rest


def test_public_function_of_mlx_links(build: Build, tmp_path: Path) -> None:
    run = link(build, tmp_path, program("mlx/backend/metal/device.h", "a = mx::zeros({1});"))

    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("include", "statement", "symbol"),
    [
        ("mlx/backend/gpu/copy.h", "mx::copy_gpu(a, b, mx::CopyType::General);", "copy_gpu"),
        ("mlx/backend/metal/device.h", "mx::metal::is_nax_available();", "is_nax_available"),
        ("mlx/mlx.h", "void PyNone_Such(); PyNone_Such();", "PyNone_Such"),
    ],
    ids=["hidden-in-mlx", "hidden-in-mlx-metal", "unknown-to-python"],
)
def test_symbol_that_no_library_exports_is_a_link_error(
    build: Build, tmp_path: Path, include: str, statement: str, symbol: str
) -> None:
    run = link(build, tmp_path, program(include, statement))

    assert run.returncode != 0
    assert re.search(f"undefined symbol: .*{symbol}", run.stderr), run.stderr


def test_shader_that_is_not_ascii_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.metal").write_bytes(b"kernel\n// \xc3\xa9\n")
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    run = subprocess.run(
        [
            *(cmake, f"-DROOT={tmp_path}", "-DFILES=bad.metal", f"-DOUTPUT={tmp_path / 'out.cpp'}"),
            *("-P", str(ROOT / "cmake/embed_sources.cmake")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode != 0
    assert "bad.metal:2" in run.stderr
    assert not (tmp_path / "out.cpp").exists()
