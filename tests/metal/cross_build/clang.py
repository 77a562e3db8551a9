"""Clang as CMake wants it for a Mac: `python clang.py c++ 14.0 arguments...`.

The linker in Zig's wheel lacks three things of Apple's, which are put in other words here.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(language: str, macos: str, arguments: list[str]) -> int:
    words = [sys.executable, "-m", "ziglang", language, "-target", f"aarch64-macos.{macos}"]
    words += ["-isystem", str(HERE / "stubs"), f"-F{HERE / 'frameworks'}"]
    for word in arguments:
        words += translated(word)
    return subprocess.run(words, check=False).returncode


def translated(word: str) -> list[str]:
    if word == "-bundle":  # a library that no one links to; a plain one loads the same way
        return ["-dynamiclib"]
    if word.startswith("-Wl,@"):  # the names that the interpreter has, each after -U
        return [str(interpreter(Path(word.removeprefix("-Wl,@"))))]
    if word in ("-O2", "-O3"):  # what comes out is read and never run
        return ["-O1"]
    if word.startswith("-F/Applications/"):  # of the machine that MLX was built on
        return []
    return [word]


def interpreter(names: Path) -> Path:
    """A library that has the names which the file lists, for the linker to find them in."""
    symbols = [line.split()[1] for line in names.read_text().splitlines() if line.strip()]
    library = Path("libpython.tbd")  # in the folder of the build
    library.write_text(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\n"
        "install-name: '@executable_path/python'\nexports:\n  - targets: [ arm64-macos ]\n"
        f"    symbols: [ {', '.join(symbols)} ]\n...\n"
    )
    return library


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
