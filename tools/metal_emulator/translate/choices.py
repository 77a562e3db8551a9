"""The operands of c ? a : b as values.

C++ for OpenCL takes an object in thread memory and a temporary for two types; Metal does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from metal_emulator.translate.tokens import Token, closing, closing_angle

_ENDS = (",", ";", ")", "]", "}", ":")


def choice_wrappers(tokens: Sequence[Token], start: int, end: int) -> dict[int, str]:
    """What to put before which token, so that operands in [start, end) become values."""
    put: dict[int, str] = {}
    for i in range(start, end):
        if tokens[i].text == "?":
            colon = _operand_end(tokens, i + 1)
            _wrap(tokens, put, i + 1, colon)
            _wrap(tokens, put, colon + 1, _operand_end(tokens, colon + 1))
    return put


def _wrap(tokens: Sequence[Token], put: dict[int, str], start: int, end: int) -> None:
    # A literal 0 must stay one: it may stand for a pointer.
    if end - start > 1 or tokens[start].kind == "word":
        put[start] = put.get(start, "") + " emu::value("
        put[end] = ")" + put.get(end, "")


def _operand_end(tokens: Sequence[Token], at: int) -> int:
    nested = 0
    while True:
        text = tokens[at].text
        if text == ":" and nested:
            nested -= 1
        elif text in _ENDS:
            return at
        nested += text == "?"
        if text in ("(", "[", "{"):
            at = closing(tokens, at)
        elif text == "<":
            close = closing_angle(tokens, at)
            if close > 0 and tokens[close + 1].text in ("(", "::", "{"):
                at = close
        at += 1
