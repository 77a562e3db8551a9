"""A terminal of some columns: what a program shows on it, screen after screen."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass

import pyte

ROWS = 60
EVERY_STEP = {"TQDM_MININTERVAL": "0"}  # is shown, however fast this machine is


@dataclass(frozen=True)
class Shown:
    """What was to be seen on a terminal.

    Attributes:
        screens: the lines of each screen, less empty ones, in order; a screen is new with each
            carriage return.
        returncode: of the program.
    """

    screens: list[list[str]]
    returncode: int

    @property
    def lines(self) -> list[str]:
        """What stays in the end."""
        return self.screens[-1]

    def bars(self, name: str) -> list[str]:
        """Every state of the bar of this name."""
        seen = [line for screen in self.screens for line in screen if line.startswith(name)]
        return list(dict.fromkeys(line for line in seen if "|" in line))


def written_on_terminal(
    code: str, columns: int = 80, folder: os.PathLike[str] | str = ".", **environment: str
) -> tuple[str, int]:
    """What Python code writes to a terminal (both streams), and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", ROWS, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, env=environment, cwd=folder
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # Linux says so that the other end is closed.
            pass
        os.close(ours)
    return written.decode(), process.returncode


def show(code: str, columns: int, folder: os.PathLike[str] | str = ".") -> Shown:
    """Run Python code on a terminal, and look at it."""
    written, returncode = written_on_terminal(code, columns, folder, **EVERY_STEP)
    screen = pyte.Screen(columns, ROWS)
    stream = pyte.Stream(screen)
    screens = []
    for part in written.split("\r"):
        stream.feed(part)
        screens.append([line.rstrip() for line in screen.display if line.strip()])
        stream.feed("\r")
    return Shown(screens, returncode)
