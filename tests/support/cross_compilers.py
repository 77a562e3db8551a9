"""The compilers in Zig's wheel, as what CMake wants for another system than this one."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def write_tools(folder: Path, scripts: dict[str, str]) -> Path:
    """Executables of one word, in a new folder: these scripts of the shell, ar and ranlib."""
    zig = f'exec "{sys.executable}" -m ziglang'
    archivers = {name: f'{zig} {name} "$@"' for name in ("ar", "ranlib")}
    folder.mkdir(parents=True)
    for name, script in {**archivers, **scripts}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def run(command: Sequence[str | Path], failure: str) -> str:
    """What the command printed. Raises RuntimeError with the end of that where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{failure}\n+ {words}\n{(done.stdout + done.stderr)[-6000:]}")
    return done.stdout
