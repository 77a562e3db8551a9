"""Builds the extension for a Mac with Apple silicon, here, by the project's own CMakeLists.txt.

Real are MLX's macOS wheels (headers, CMake files, libmlx.dylib) and nanobind. Apple's frameworks
are stubs of the few names that are used; the interpreter's headers are those of this machine.
"""

import shutil
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cross_compilers

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Build:
    macos: str
    folder: Path
    extension: Path
    mlx: Path  # the package of the macOS wheels


def build(macos: str, folder: Path) -> Build:
    """Configures and builds everything for a version of macOS ("14.0"); warnings are errors.

    Raises RuntimeError with the end of what the failing command printed.
    """
    mlx = macos_wheels(macos, folder / "wheels")
    tools = write_tools(macos, mlx, folder / "tools")
    suffix = f"cpython-{PYTHON.replace('.', '')}-darwin"
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder / "build"]
    configure += [
        f"-DCMAKE_TOOLCHAIN_FILE={HERE / 'toolchain.cmake'}",
        f"-DCROSS_BUILD_TOOLS={tools}",
        f"-DPython_EXECUTABLE={tools / 'python'}",
        f"-DPython_INCLUDE_DIR={python_headers(folder / 'python')}",
        f"-DSKBUILD_SOABI={suffix}",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
    ]
    printed = run(configure) + run(["cmake", "--build", folder / "build"])
    (folder / "build.log").write_text(printed)
    return Build(macos, folder / "build", folder / "build" / f"_ext.{suffix}.so", mlx)


def relink(built: Build, macos: str, folder: Path) -> Build:
    """The same objects, linked for another version of macOS against MLX's wheels for that one.

    Raises RuntimeError where these have other headers, of which other objects would come.
    """
    mlx = macos_wheels(macos, folder / "wheels")
    if headers(mlx) != headers(built.mlx):
        raise RuntimeError(
            f"MLX's wheels for macOS {macos} have other headers than those for {built.macos}: "
            "build for both."
        )
    tools = write_tools(macos, mlx, folder / "tools")
    commands = ["ninja", "-C", built.folder, "-t", "commands", built.extension.name]
    link = run(commands).splitlines()[-1]
    extension = folder / built.extension.name
    for old, new in (
        (str(built.folder.parent / "tools"), str(tools)),
        (str(built.mlx), str(mlx)),
        (f"-o {built.extension.name}", f"-o {extension}"),
    ):
        if old not in link:
            raise RuntimeError(f"The command that links does not name {old}:\n{link}")
        link = link.replace(old, new)
    run(["sh", "-c", f"cd '{built.folder}' && {link}"])
    return Build(macos, built.folder, extension, mlx)


def python_headers(folder: Path) -> Path:
    """The interpreter's, with this machine's pyconfig.h: Debian's has one for each target."""
    include = Path(sysconfig.get_path("include"))
    shutil.copytree(include, folder)
    machine = str(sysconfig.get_config_var("MULTIARCH"))
    chosen = include.parent / machine / include.name / "pyconfig.h"
    if chosen.exists():
        shutil.copy(chosen, folder / "pyconfig.h")
    return folder


def headers(mlx: Path) -> dict[str, bytes]:
    include = mlx / "include"
    return {str(x.relative_to(include)): x.read_bytes() for x in include.rglob("*") if x.is_file()}


def macos_wheels(macos: str, folder: Path) -> Path:
    """MLX's wheels for macOS, of the version that is installed here, unpacked."""
    release = version("mlx")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    download += ["--only-binary=:all:", "--python-version", PYTHON]
    download += ["--platform", f"macosx_{macos.replace('.', '_')}_arm64"]
    run(
        [*download, f"mlx=={release}", f"mlx-metal=={release}"],
        f"MLX's wheels for macOS {macos} could not be downloaded; this needs a package index.",
    )
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:  # without MLX's own kernels: 100 MB
            file.extractall(folder, [x for x in file.namelist() if not x.endswith(".metallib")])
        wheel.unlink()
    return folder / "mlx"


def write_tools(macos: str, mlx: Path, folder: Path) -> Path:
    """The compilers and the interpreter, as the single executables that CMake wants."""
    clang = f'exec "{sys.executable}" "{HERE / "clang.py"}"'
    scripts = {
        "cc": f'{clang} cc {macos} "$@"',
        "c++": f'{clang} c++ {macos} "$@"',
        # A Mac's interpreter would find a Mac's MLX.
        "python": f'[ "$*" = "-m mlx --cmake-dir" ] && echo "{mlx}" && exit\n'
        f'exec "{sys.executable}" "$@"',
    }
    return cross_compilers.write_tools(folder, scripts)


def run(command: list[str | Path], failure: str = "The build for macOS failed.") -> str:
    """What the command printed. Raises RuntimeError where it fails."""
    return cross_compilers.run(command, failure)
