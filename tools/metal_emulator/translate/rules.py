"""What Metal forbids and a C++ compiler would let pass, as far as tokens show it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metal_emulator.translate.tokens import (
    Token,
    closing,
    closing_angle,
    opening_angle,
    refuse,
)

_FORBIDDEN = {
    *("double", "virtual", "new", "delete", "goto", "try", "catch", "throw", "dynamic_cast"),
    *("typeid", "std", "asm", "__asm__", "__asm", "printf", "thread_local", "register"),
    *("co_await", "co_return", "co_yield", "extern", "override", "__attribute__", "__declspec"),
    *("global", "local", "__global", "__local", "__private", "__constant", "__generic"),
    *("__kernel", "wchar_t", "char16_t", "char32_t", "__int128", "__bf16", "_Float16"),
}
# Of Metal's library and of OpenCL's: none may be taken for the other.
_UNKNOWN = ("atomic_", "memory_order", "texture", "sampler", "image2d_t", "event_t", "queue_t")
_OF_THE_LIBRARY = ("__builtin_huge_valf", "__builtin_nanf")
SPACES = {"device", "constant", "threadgroup", "thread"}
_MATRIX_WORDS = {
    *("simdgroup_matrix", "simdgroup_float8x8", "simdgroup_half8x8", "simdgroup_bfloat8x8"),
    *("simdgroup_load", "simdgroup_store", "simdgroup_multiply", "make_filled_simdgroup_matrix"),
    "simdgroup_multiply_accumulate",
}
_FLOATING = re.compile(r"0[xX].*[.pP].*|(?!0[xX]).*[.eE].*")
_SCALARS = ("bool", "char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "half")
_TYPES = {
    *(name + size for name in (*_SCALARS, "float", "bfloat") for size in ("", "2", "3", "4")),
    *(f"{u}int{bits}_t" for u in ("", "u") for bits in (8, 16, 32, 64)),
    *("void", "size_t", "unsigned", "signed", "ptrdiff_t", "auto", "vec", "simdgroup_matrix"),
}


def check_words(tokens: Sequence[Token], libraries: set[str]) -> None:
    """Refuse words, lambdas and literals that Metal does not have.

    Raises:
        MetalCompileError: one of them stands in the source.
    """
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ";"
        reserved = token.text.startswith(("__builtin", "emu_", "__opencl"))
        if (token.text in _FORBIDDEN or reserved) and token.text not in _OF_THE_LIBRARY:
            raise refuse(token, f"Metal has no `{token.text}`.")
        if token.text.startswith(_UNKNOWN):
            raise refuse(token, f"the emulator does not know `{token.text}`.")
        if token.text == "long" and before == "long":
            raise refuse(token, "Metal has no `long long`; long has 64 bits.")
        if token.text in _MATRIX_WORDS and "metal_simdgroup_matrix" not in libraries:
            raise refuse(token, f"`{token.text}` needs #include <metal_simdgroup_matrix>.")
        if token.kind == "number" and _FLOATING.fullmatch(token.text):
            _check_floating(token)
        if token.text == "[" and _opens_lambda(tokens, i, before):
            raise refuse(token, "the emulator takes no lambdas: write a function.")


def _check_floating(token: Token) -> None:
    """A literal says its type: 1.0 is a double in C++, a float in Metal, and half(x) * 1.0 is a
    float, which nobody sees."""
    if token.text[-1] in "lL":
        raise refuse(token, f"`{token.text}` is a long double, which Metal does not have.")
    if token.text[-1] not in "fFhH":
        raise refuse(token, f"`{token.text}` needs a suffix: f, h or bf; Metal has no double.")


def _opens_lambda(tokens: Sequence[Token], i: int, before: str) -> bool:
    starts = before in ("=", "(", ",", "return", ";", "{", "}", "&&", "||", "?", ":")
    return starts and i + 1 < len(tokens) and tokens[i + 1].text != "["


def declared_types(tokens: Sequence[Token]) -> set[str]:
    """Names that stand for types: the language's, and those that the source declares."""
    names = set(_TYPES)
    for i, token in enumerate(tokens[:-2]):
        after = tokens[i + 1]
        is_type_word = token.text in ("struct", "class", "enum", "union", "typename", "using")
        if is_type_word and after.kind == "word" and after.text != "namespace":
            names.add(tokens[i + 2].text if after.text == "class" else after.text)
        if token.text == "typedef":
            end = next((j for j in range(i, len(tokens)) if tokens[j].text == ";"), i + 1)
            names.add(tokens[end - 1].text)
    return names


def check_pointers(tokens: Sequence[Token]) -> None:
    """Refuse pointers and references that do not say which memory they point to.

    Raises:
        MetalCompileError: a `*` or `&` follows a type without an address space before it.
    """
    types = declared_types(tokens)
    for i, token in enumerate(tokens):
        if token.text not in ("*", "&", "&&") or i == 0:
            continue
        at = i - 1 if _is_of_array(tokens, i) else i
        if _declares(tokens, at, types) and not _has_space(tokens, at):
            what = "pointer" if token.text == "*" else "reference"
            raise refuse(
                token, f"the {what} needs an address space: device, constant, threadgroup, thread."
            )


def _is_of_array(tokens: Sequence[Token], i: int) -> bool:
    """Whether the sign at i is that of (&name)[size], whose type stands before the bracket."""
    if tokens[i - 1].text != "(":
        return False
    close = closing(tokens, i - 1)
    return close - i <= 2 and close + 1 < len(tokens) and tokens[close + 1].text == "["


def _declares(tokens: Sequence[Token], i: int, types: set[str]) -> bool:
    """Whether the sign at i makes a pointer or reference of a type, and is no operator."""
    before = tokens[i - 1]
    if before.text in ("const", "volatile") or before.text in SPACES:
        return True
    if before.text == "*" and i >= 2:
        return _declares(tokens, i - 1, types)
    if before.text == ">":
        start = opening_angle(tokens, i - 1)
        return start > 0 and tokens[start - 1].text in types
    return before.text in types and tokens[i - 2].text not in (".", "->")


def _has_space(tokens: Sequence[Token], i: int) -> bool:
    j = i - 1
    while j >= 0:
        text = tokens[j].text
        if text in SPACES:
            return True
        if text == ">":
            j = opening_angle(tokens, j) - 1
        elif tokens[j].kind == "word" or text == "::":
            j -= 1
        else:
            return False
    return False


def possible_recursion(bodies: Sequence[tuple[Token, Sequence[Token]]]) -> list[str]:
    """Names of functions that may call themselves; overloads are taken as one.

    Args:
        bodies: of each function its name and the tokens of its body.
    """
    names = {name.text for name, _ in bodies}
    calls: dict[str, set[str]] = {name: set() for name in names}
    for name, body in bodies:
        for i, token in enumerate(body[:-1]):
            if token.text in names and _is_called(body, i):
                calls[name.text].add(token.text)
    return sorted(name for name in names if name in _reached(calls, name))


def _is_called(body: Sequence[Token], i: int) -> bool:
    after = body[i + 1].text
    if after == "<":
        end = closing_angle(body, i + 1)
        after = body[end + 1].text if 0 < end < len(body) - 1 else ""
    return after == "("


def _reached(calls: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    to_visit = list(calls[start])
    while to_visit:
        name = to_visit.pop()
        if name not in reached:
            reached.add(name)
            to_visit.extend(calls[name])
    return reached
