"""The pages that people read as Markdown, and the commands and code in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The book, and what it links to. Notes on the ops have no commands but inline ones.
PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*/*.md")),
    "tools/metal_emulator/README.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
# A block without a language is of a shell where one of its lines begins so.
_PROGRAMS = re.compile(
    r"(\$ )?([A-Z_]+=\S+ )*(mlx-esm|mlx\.launch|python|pip|pytest|pre-commit|mkdocs|\.ci/\w+)( |$)"
)


@dataclass(frozen=True)
class Command:
    """A line that a person types, as a shell has taken it apart.

    Attributes:
        page, text: where it stands, and how.
        environment: the assignments in front of it.
        launched: whether mlx.launch starts it.
        words: the program and its arguments.
    """

    page: str
    text: str
    environment: tuple[str, ...]
    launched: bool
    words: tuple[str, ...]

    @property
    def name(self) -> str | None:
        """Which command of ours it is; None where it is another program."""
        if self.words[0] == "mlx-esm":
            return self.words[1] if len(self.words) > 1 else None
        if self.words[:2] == ("python", "-m"):
            return self.words[2].removeprefix("mlx_esm_kernels.")
        return None

    @property
    def arguments(self) -> list[str]:
        """What follows the name of a command of ours."""
        return list(self.words[2 if self.words[0] == "mlx-esm" else 3 :])


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(text_of(page)) if kind == language]


def commands(page: str) -> list[Command]:
    """Those of the fenced blocks, in their order; `a && b` are two."""
    found = []
    for body in blocks(page, ""):
        lines = body.replace("\\\n", " ").splitlines()
        if not any(_PROGRAMS.match(line) for line in lines):
            continue
        console = any(line.startswith("$ ") for line in lines)
        for line in lines:
            if console and not line.startswith("$ "):
                continue  # what the command says
            words = shlex.split(line.removeprefix("$ "), comments=True)
            found += [_command(page, line, part) for part in _split(words, "&&")]
    return found


def inline_commands(page: str) -> Iterator[list[str]]:
    """The words of each `mlx-esm ...` within prose; what stands there may leave things out."""
    prose = _FENCE.sub("", text_of(page))
    for span in re.findall(r"`([^`]+)`", prose):
        words = " ".join(span.split()).replace("python -m mlx_esm_kernels.", "mlx-esm ").split(" ")
        if words[0] == "mlx-esm" and len(words) > 1 and "|" not in words[1]:
            yield words[1:]


def _command(page: str, line: str, words: list[str]) -> Command:
    environment = []
    while words and _ASSIGNMENT.fullmatch(words[0]):
        environment.append(words.pop(0))
    launched = words[0] == "mlx.launch"
    if launched:
        words = words[words.index("--") + 1 :]
    return Command(page, " ".join(line.split()), tuple(environment), launched, tuple(words))


def _split(words: list[str], separator: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, separator]:
        if word == separator:
            if part:
                yield part
            part = []
        else:
            part.append(word)
