"""Tokens of preprocessed Metal source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<directive>^[ \t]*\#[^\n]*)
      | (?P<space>\s+)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>::|->|<<=|>>=|\.\.\.|[-+*/%&|^!=<>]=|&&|\|\||<<|\+\+|--
          |[][(){}<>;:,.?~!%^&*+/=|-])
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_MARKER = re.compile(r'\s*#\s*(?:line\s+)?(\d+)(?:\s+"(.*?)")?')
_PRAGMAS = re.compile(r"\s*#\s*pragma\s+(unroll|nounroll|once|clang\s+(loop|diagnostic)|METAL)\b")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class MetalCompileError(RuntimeError):
    """Source that Metal, or the emulator, does not take; says the line and why."""


@dataclass(frozen=True)
class Token:
    """A word, number, string or sign, and the line of the Metal source that it stands on."""

    kind: str
    text: str
    line: int
    glued: bool = False  # no space before it


def refuse(token: Token, sentence: str) -> MetalCompileError:
    """The error for what begins at a token."""
    return MetalCompileError(f"line {token.line}: {sentence}")


def tokenize(source: str) -> tuple[list[Token], set[str]]:
    """The tokens of the text that the preprocessor gave, and the libraries that it includes.

    Raises:
        MetalCompileError: a pragma or a character that Metal does not know.
    """
    tokens: list[Token] = []
    libraries: set[str] = set()
    line, own, spaced = 1, True, True
    for match in _TOKEN.finditer(source):
        kind, text = str(match.lastgroup), match.group()
        if kind == "directive":
            marker = _MARKER.match(text)
            if marker:
                line = int(marker.group(1)) - 1
                name = marker.group(2) or ""
                own = name.endswith(".metal") or not name or name.startswith("<")
                libraries.update(re.findall(r"/(metal_\w+)$", name))
            elif own and not _PRAGMAS.match(text):
                raise MetalCompileError(f"line {line}: the emulator does not know {text.strip()}.")
        elif kind == "other":
            raise MetalCompileError(f"line {line}: {text!r} is no character of Metal.")
        elif kind != "space" and own:
            tokens.append(Token(kind, text, line, not spaced))
        spaced = kind in ("space", "directive")
        line += text.count("\n")
    return tokens, libraries


def closing(tokens: Sequence[Token], start: int) -> int:
    """The index of the bracket that closes the one at `start`."""
    opened = tokens[start].text
    depth = 0
    for i in range(start, len(tokens)):
        depth += (tokens[i].text == opened) - (tokens[i].text == _CLOSING[opened])
        if depth == 0:
            return i
    raise refuse(tokens[start], f"`{opened}` is never closed.")


def closing_angle(tokens: Sequence[Token], start: int) -> int:
    """The index of the `>` that closes the `<` at `start`; -1 where it is less-than."""
    depth, i = 0, start
    while i < len(tokens):
        text = tokens[i].text
        depth += (text == "<") - (text == ">")
        if depth == 0:
            return i
        if text in ("(", "["):
            i = closing(tokens, i)
        elif text in (";", "{", "}", "&&", "||", ")", "]"):
            return -1
        i += 1
    return -1


def opening_angle(tokens: Sequence[Token], end: int) -> int:
    """The index of the `<` that the `>` at `end` closes; -1 where it is greater-than."""
    depth = 0
    for i in range(end, -1, -1):
        depth += (tokens[i].text == ">") - (tokens[i].text == "<")
        if depth == 0:
            return i
        if tokens[i].text in (";", "{", "}"):
            return -1
    return -1


def plain_number(token: Token) -> Token:
    """The token, in C++: bfloat literals end in bf, which only Metal knows."""
    if token.kind == "number" and token.text.endswith("bf") and "." in token.text:
        return Token("raw", f"bfloat({token.text[:-2]}f)", token.line)
    return token


def spelled(tokens: Iterable[Token]) -> str:
    """Tokens as text on one line."""
    return " ".join(token.text for token in tokens)


def laid_out(tokens: Iterable[Token]) -> str:
    """Tokens as text whose lines are those of the Metal source."""
    out: list[str] = ['#line 1 "kernel.metal"\n']
    line = 1
    for token in tokens:
        if token.line != line:
            near = line > 0 and 0 < token.line - line < 4
            out.append("\n" * (token.line - line) if near else f"\n#line {token.line}\n")
        out.append(token.text if token.glued else " " + token.text)
        line = -1 if "\n" in token.text else token.line
    return "".join(out) + "\n"
