"""What Metal forbids, or is slow at, as far as only the compiled code shows it: LLVM's text, as it
is before any optimisation, so that a loop there is a loop of the source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from metal_emulator.translate import MetalCompileError

_FUNCTION = re.compile(r"^define .*?@([\w.$]+)\(.*?\{\n(.*?)^}", re.MULTILINE | re.DOTALL)
_LABEL = re.compile(r"^([\w.$-]+):", re.MULTILINE)
_TARGET = re.compile(r"label %([\w.$-]+)")
_CALL = re.compile(r"\b(?:call|invoke)\b[^@\n]*@([\w.$]+)\(.*?(?:!dbg !(\d+))?$", re.MULTILINE)
_LONG_DIVISION = re.compile(
    r"= [su](?:div|rem) (?:exact )?i64 \S+, (?!-?\d)\S+?(?:, !dbg !(\d+))?$", re.MULTILINE
)
_LINE = re.compile(r"^!(\d+) = !DILocation\(line: (\d+)", re.MULTILINE)
_LIBRARY = re.compile(r"_ZN[A-Z]*(3emu|5metal)")  # names in the namespaces emu and metal


@dataclass
class _Function:
    """A function's calls, and its divisions of 64-bit integers by what is no constant.

    Attributes:
        calls: name, location, and whether in a loop of the function.
        divisions: location, and whether in a loop of the function.
    """

    calls: list[tuple[str, str, bool]] = field(default_factory=list)
    divisions: list[tuple[str, bool]] = field(default_factory=list)


def check_compiled(code: str, suspects: Sequence[str]) -> None:
    """Refuse recursion, and 64-bit divisions in loops.

    Args:
        code: LLVM's text, with line tables.
        suspects: names of functions that may call themselves.

    Raises:
        MetalCompileError: a function calls itself, or divides where it should not.
    """
    functions = {name: _read(body) for name, body in _FUNCTION.findall(code)}
    _check_recursion(functions, suspects)
    lines = dict(_LINE.findall(code))
    for location in _divisions_in_loops(functions):
        raise MetalCompileError(
            f"line {lines.get(location, '?')}: a 64-bit division or remainder in a loop, which "
            "GPUs do in many steps: divide 32-bit integers, by a constant, or before the loop."
        )


def _read(body: str) -> _Function:
    labels = list(_LABEL.finditer(body))
    starts = [0, *(label.end() for label in labels)]
    ends = [*(label.start() for label in labels), len(body)]
    names = ["", *(label.group(1) for label in labels)]
    blocks = {n: body[a:b] for n, a, b in zip(names, starts, ends, strict=True)}
    follows = {name: set(_TARGET.findall(text)) for name, text in blocks.items()}
    function = _Function()
    for name, text in blocks.items():
        loops = name in _reached(follows, name)
        function.calls += [(called, at, loops) for called, at in _CALL.findall(text)]
        function.divisions += [(at, loops) for at in _LONG_DIVISION.findall(text)]
    return function


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    to_visit = list(edges.get(start, ()))
    while to_visit:
        name = to_visit.pop()
        if name not in reached:
            reached.add(name)
            to_visit.extend(edges.get(name, ()))
    return reached


def _check_recursion(functions: dict[str, _Function], suspects: Iterable[str]) -> None:
    calls = {name: {called for called, _, _ in f.calls} for name, f in functions.items()}
    for name in calls:
        if name in _reached(calls, name):
            written = next((suspect for suspect in suspects if suspect in name), name)
            raise MetalCompileError(f"`{written}` calls itself; Metal has no recursion.")


def _divisions_in_loops(functions: dict[str, _Function]) -> Iterator[str]:
    """Locations in the source: of a division, or where it is the library's, of the call."""
    seen: set[str] = set()  # run as a whole within some loop
    to_visit = [(name, False, "") for name in functions if not _LIBRARY.match(name)]
    while to_visit:
        name, looped, call = to_visit.pop()
        if name not in functions or (looped and name in seen):
            continue
        if looped:
            seen.add(name)
        yield from (call or at for at, loops in functions[name].divisions if loops or looped)
        for called, at, loops in functions[name].calls:
            library = _LIBRARY.match(called)
            if looped or loops or library:
                to_visit.append((called, looped or loops, call or at if library else ""))
