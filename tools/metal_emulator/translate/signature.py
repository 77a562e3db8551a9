"""A kernel's attributes and parameters, and the functions that the runtime calls for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metal_emulator.translate.tokens import Token, closing, refuse, spelled

_SCALAR_BUILTINS = {
    "thread_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "threads_per_simdgroup",
}
_VECTOR_BUILTINS = {
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threads_per_threadgroup",
    "threadgroups_per_grid",
    "threads_per_grid",
}
_BUILTIN_TYPES = {"uint", "ushort", "uint2", "uint3", "ushort2", "ushort3"}
_LAST_SLOT = 30
# Seen with 8 x 8 matrices: silently wrong numbers from Apple's compiler, right ones with 64.
ONE_SIMDGROUP = (
    "kernels for threadgroups of 32 threads, one simdgroup, are reported to be miscompiled by "
    "Apple's compiler; use 64 or more."
)


@dataclass
class Kernel:
    """What a launch needs to know of a kernel.

    Attributes:
        slots: of its buffers, to their address spaces.
        optional: slot to the function constant that says whether it exists.
        max_threads: of [[max_total_threads_per_threadgroup]], an expression; "0" if not given.
        arguments: expressions that give its parameters.
        arrays: type and extents of its threadgroup arrays, in order.
    """

    name: str
    slots: dict[int, str] = field(default_factory=dict)
    optional: dict[int, str] = field(default_factory=dict)
    max_threads: str = "0"
    arguments: list[str] = field(default_factory=list)
    arrays: list[tuple[str, str]] = field(default_factory=list)


def split_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """Token lists between the commas that no bracket encloses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += token.text in ("(", "[", "{", "<")
        depth -= token.text in (")", "]", "}", ">")
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def take_attributes(tokens: Sequence[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Tokens without their [[attributes]], and the attributes."""
    rest: list[Token] = []
    attributes: list[list[Token]] = []
    i = 0
    while i < len(tokens):
        if tokens[i].text == "[" and i + 1 < len(tokens) and tokens[i + 1].text == "[":
            end = closing(tokens, i)
            attributes += split_commas(tokens[i + 2 : end - 1])
            i = end
        else:
            rest.append(tokens[i])
        i += 1
    return rest, attributes


def read_max_threads(kernel: Kernel, attributes: list[list[Token]]) -> None:
    """Notes what the attributes of a kernel's signature say."""
    for attribute in attributes:
        if attribute[0].text == "max_total_threads_per_threadgroup":
            kernel.max_threads = spelled(attribute[2:-1])
        elif spelled(attribute) != "kernel":
            raise refuse(attribute[0], f"kernels have no attribute [[{spelled(attribute)}]] here.")


def read_parameter(kernel: Kernel, parameter: list[Token]) -> list[Token]:
    """Notes how the running thread gets a parameter; gives its plain declaration."""
    declaration, attributes = take_attributes(parameter)
    where = parameter[0]
    if not attributes:
        raise refuse(where, f"the kernel's parameter `{spelled(declaration)}` needs an attribute.")
    kind = attributes[0][0].text
    if kind == "buffer":
        _read_buffer(kernel, declaration, attributes)
    elif len(attributes) == 1 and len(attributes[0]) == 1:
        type_name = spelled(declaration[:-1]).removeprefix("const ")
        width = int(type_name[-1]) if type_name[-1] in "23" else 1
        known = kind in _VECTOR_BUILTINS or (kind in _SCALAR_BUILTINS and width == 1)
        if not known or type_name not in _BUILTIN_TYPES:
            raise refuse(where, f"no builtin fits `{spelled(parameter)}`.")
        values = ", ".join(
            f"{type_name.rstrip('23')}(emu_builtin(emu_{kind}, {axis}))" for axis in range(width)
        )
        kernel.arguments.append(f"{type_name}({values})")
    else:
        raise refuse(where, f"no parameter of a kernel is `{spelled(parameter)}`.")
    return declaration


def _read_buffer(kernel: Kernel, declaration: list[Token], attributes: list[list[Token]]) -> None:
    where, words = declaration[0], [token.text for token in declaration]
    space = next((word for word in words if word in ("device", "constant")), None)
    if space is None or words[-2] not in ("*", "&"):
        raise refuse(where, f"`{spelled(declaration)}` must be a device or constant pointer.")
    number = [token.text for token in attributes[0][1:]]
    if len(number) != 3 or not number[1].isdigit() or int(number[1]) > _LAST_SLOT:
        raise refuse(
            where, f"[[{spelled(attributes[0])}]] must be buffer(n), n from 0 to {_LAST_SLOT}."
        )
    slot = int(number[1])
    if slot in kernel.slots:
        raise refuse(where, f"buffer({slot}) is given twice.")
    kernel.slots[slot] = space
    pointer = spelled(declaration[:-2])
    value = f"{'*' if words[-2] == '&' else ''}({pointer}*)emu_argument({slot})"
    for attribute in attributes[1:]:
        if attribute[0].text != "function_constant" or len(attribute) != 4 or words[-2] == "&":
            raise refuse(where, f"a buffer has no attribute [[{spelled(attribute)}]].")
        kernel.optional[slot] = attribute[2].text
        value = f"({attribute[2].text} ? {value} : ({pointer}*)0)"
    kernel.arguments.append(value)


def layout(kernel: Kernel) -> str:
    """A function that gives the place of each threadgroup array, and for -1 the end of all."""
    parts = [f"constexpr uint emu_layout_{kernel.name}(int n) {{ uint end = 0;"]
    for i, (kind, extent) in enumerate(kernel.arrays):
        parts.append(f"end = (end + 15) / 16 * 16; if (n == {i}) return end;")
        parts.append(f"{{ typedef {kind} emu_array {extent}; end += sizeof(emu_array); }}")
    parts.append("return end; }")
    return " ".join(parts)


def exported(kernel: Kernel) -> str:
    """The entry points, to stand after the kernel."""
    name = kernel.name
    return (
        f'static_assert(({kernel.max_threads}) != 32, "{name}: {ONE_SIMDGROUP}");\n'
        f'extern "C" void emu_entry_{name}() {{ {name}({", ".join(kernel.arguments)}); }}\n'
        f'extern "C" uint emu_max_threads_{name}() {{ return {kernel.max_threads}; }}\n'
        f'extern "C" uint emu_threadgroup_bytes_{name}() {{ return emu_layout_{name}(-1); }}\n'
    )
