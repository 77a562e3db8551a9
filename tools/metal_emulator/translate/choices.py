"""The operands of c ? a : b as values, and whether they lie in one address space.

C++ for OpenCL takes an object in thread memory and a temporary for two types; Metal does not. Two
objects of different address spaces are for Metal's compiler to refuse, and are refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

from metal_emulator.translate.tokens import Token, closing, closing_angle, plain_number

_ENDS = (",", ";", ")", "]", "}", ":")


def choice_wrappers(tokens: Sequence[Token], start: int, end: int) -> dict[int, str]:
    """What to put before which token, so that operands in [start, end) become values."""
    put: dict[int, str] = {}
    for i in range(start, end):
        if tokens[i].text == "?":
            colon = _operand_end(tokens, i + 1)
            last = _operand_end(tokens, colon + 1)
            # && binds tighter than ?: and than the || that may stand before it.
            put[i] = put.get(i, "") + (
                f" && emu::in_one_space<decltype(({_operand(tokens, i + 1, colon)})),"
                f" decltype(({_operand(tokens, colon + 1, last)}))>() "
            )
            _wrap(tokens, put, i + 1, colon)
            _wrap(tokens, put, colon + 1, last)
    return put


def _operand(tokens: Sequence[Token], start: int, end: int) -> str:
    """An operand as text, the choices within it as values."""
    put = choice_wrappers(tokens, start, end)
    texts = (put.get(i, "") + " " + plain_number(tokens[i]).text for i in range(start, end))
    return "".join(texts) + put.get(end, "")


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
