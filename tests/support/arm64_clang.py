"""Clang as CMake wants it for arm64 Linux: `python arm64_clang.py arguments...`. Links statically.

Zig has words of its own for a processor, which take the place of those that compilers share.
"""

import subprocess
import sys

MARCH = "-march=armv8.2-a"


def main(arguments: list[str]) -> int:
    words = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl"]
    return subprocess.run([*words, *map(translated, arguments)], check=False).returncode


def translated(word: str) -> str:
    if word.startswith(MARCH):
        return f"-mcpu=generic+v8_2a{word.removeprefix(MARCH)}"
    return "-O1" if word == "-O3" else word  # what comes out is small, and run for seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
