"""Walks a source's declarations and rewrites what C++ for OpenCL says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metal_emulator.translate import rules
from metal_emulator.translate.choices import choice_wrappers
from metal_emulator.translate.signature import (
    Kernel,
    exported,
    layout,
    read_max_threads,
    read_parameter,
    split_commas,
    take_attributes,
)
from metal_emulator.translate.tokens import (
    Token,
    closing,
    closing_angle,
    laid_out,
    plain_number,
    refuse,
    spelled,
    tokenize,
)

_CONSTANT_TYPES = {"bool", "int", "float"}
_ATTRIBUTES_OF_SPEED = {"clang", "maybe_unused", "unroll"}
_TYPE_WORDS = {"namespace", "struct", "class", "union", "enum"}


@dataclass
class Translation:
    """C++ for OpenCL.

    Attributes:
        text: for the compiler, after its header.
        kernels: with the slots they have.
        constants: types of the function constants, by index.
        recursive: functions that may call themselves, for a closer look.
    """

    text: str
    kernels: list[Kernel]
    constants: dict[int, str]
    recursive: list[str]


def translate(source: str) -> Translation:
    """C++ for OpenCL of a preprocessed Metal source.

    Raises:
        MetalCompileError: the source has something that Metal, or the emulator, does not know.
    """
    tokens, libraries = tokenize(source)
    rules.check_words(tokens, libraries)
    rules.check_pointers(tokens)
    program = _Program(tokens)
    program.scope(0, len(tokens), None)
    recursive = rules.possible_recursion(program.bodies)
    return Translation(laid_out(program.out), program.kernels, program.constants, recursive)


class _Program:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.out: list[Token] = []
        self.kernels: list[Kernel] = []
        self.constants: dict[int, str] = {}
        self.constant_names: set[str] = set()  # function constants, and what is made of them
        self.bodies: list[tuple[Token, Sequence[Token]]] = []

    def raw(self, text: str, line: int) -> None:
        self.out.append(Token("raw", text, line))

    def define(self, name: str, value: str, line: int) -> None:
        self.raw(f"\n#define {name} {value}\n", line)

    def scope(self, at: int, end: int, struct: str | None) -> None:
        """The declarations of a file, of a namespace, or of a struct's members."""
        while at < end:
            at = self.declaration(at, end, struct)

    def declaration(self, at: int, end: int, struct: str | None) -> int:
        tokens = self.tokens
        text = tokens[at].text
        if text in (";", "public", "private", "protected", ":"):
            self.out.append(tokens[at])
            return at + 1
        if text == "template":
            if tokens[at + 1].text != "<":
                raise refuse(tokens[at], "the emulator takes no explicit instantiation.")
            stop = closing_angle(tokens, at + 1) + 1
            self.out += tokens[at:stop]
            return stop
        if text in ("using", "typedef", "static_assert"):
            stop = self.statement_end(at)
            self.out += tokens[at:stop]
            return stop
        head = at
        while head < end and tokens[head].text not in (";", "{", "(", "="):
            head = closing(tokens, head) + 1 if tokens[head].text == "[" else head + 1
        kind = {token.text for token in tokens[at:head]} & _TYPE_WORDS
        if head < end and tokens[head].text == "{" and kind:
            return self.braced(at, head, kind)
        if head < end and tokens[head].text == "(":
            is_call = tokens[head - 1].text == "operator"
            return self.function(at, head + 2 if is_call else head, end, struct)
        return self.variable(at, self.statement_end(at), struct)

    def statement_end(self, at: int) -> int:
        while at < len(self.tokens) and self.tokens[at].text != ";":
            opens = self.tokens[at].text in ("(", "[", "{")
            at = closing(self.tokens, at) + 1 if opens else at + 1
        return at + 1

    def braced(self, at: int, head: int, kind: set[str]) -> int:
        stop = closing(self.tokens, head)
        self.out += self.tokens[at : head + 1]
        if "enum" in kind:
            self.out += self.tokens[head + 1 : stop]
        else:
            struct = None if kind == {"namespace"} else self.tokens[head - 1].text
            self.scope(head + 1, stop, struct)
        self.out.append(self.tokens[stop])
        return stop + 1

    def refuse_unknown(self, attributes: list[list[Token]]) -> None:
        for attribute in attributes:
            if attribute[0].text not in _ATTRIBUTES_OF_SPEED:
                raise refuse(
                    attribute[0], f"the emulator knows no attribute [[{spelled(attribute)}]] here."
                )

    # ---- Variables -------------------------------------------------------------------------------

    def variable(self, at: int, end: int, struct: str | None) -> int:
        rest, attributes = take_attributes(self.tokens[at:end])
        words = [token.text for token in rest]
        line = rest[0].line
        if attributes and attributes[0][0].text == "function_constant":
            self.function_constant(rest, attributes)
            return end
        self.refuse_unknown(attributes)
        if struct is not None and "static" not in words:
            self.out += rest
        elif "constant" not in words:
            raise refuse(
                rest[0], f"`{spelled(rest)}` must be in constant memory: write constant before it."
            )
        elif self.constant_names.intersection(words):
            equals = words.index("=")
            name = words[equals - 1]
            self.constant_names.add(name)
            kind = " ".join(word for word in words[: equals - 1] if word != "constant")
            self.raw(f"inline {kind} emu_value_{name}() {{ return", line)
            self.out += rest[equals + 1 :]
            self.raw("}", line)
            self.define(name, f"emu_value_{name}()", line)
        else:
            self.raw("__global const", line)
            self.out += [token for token in rest if token.text != "constant"]
            self.constant_table(words, line)
        return end

    def constant_table(self, words: list[str], line: int) -> None:
        """Arrays are read as the kernel's constant arguments are."""
        equals = words.index("=") if "=" in words else 0
        if equals and words[equals - 1] == "]" and "constexpr" not in words:
            name = words[words.index("[") - 1]
            self.define(name, f"emu::in_constant({name})", line)

    def function_constant(self, rest: list[Token], attributes: list[list[Token]]) -> None:
        words = [token.text for token in rest if token.text != "const"]
        attribute = [token.text for token in attributes[0]]
        if len(words) != 4 or words[0] != "constant" or len(attribute) != 4:
            raise refuse(rest[0], f"`{spelled(rest)}` must be `constant TYPE NAME [[...]];`.")
        kind, name, index = words[1], words[2], int(attribute[2])
        if kind not in _CONSTANT_TYPES or index in self.constants:
            raise refuse(rest[0], f"function constant {index} must be one bool, int or float.")
        self.constants[index] = kind
        self.constant_names.add(name)
        self.raw(
            f'extern "C" {{ __global {kind} emu_constant_{index}; }} '
            f"EMU_QUIET inline {kind} emu_value_{name}() {{ return emu_constant_{index}; }}",
            rest[0].line,
        )
        self.define(name, f"emu_value_{name}()", rest[0].line)

    # ---- Functions -------------------------------------------------------------------------------

    def function(self, at: int, head: int, end: int, struct: str | None) -> int:
        tokens = self.tokens
        close = closing(tokens, head)
        body = close + 1
        while body < end and tokens[body].text not in ("{", ";", "="):
            body = closing(tokens, body) + 1 if tokens[body].text in ("(", "[") else body + 1
        if tokens[body].text == "=":
            raise refuse(tokens[body], "the emulator takes no defaulted or deleted functions.")
        before, attributes = take_attributes(tokens[at:head])
        after, more = take_attributes(tokens[close + 1 : body])
        words = [token.text for token in before]
        stop = closing(tokens, body) if tokens[body].text == "{" else body
        if "kernel" in words or any(attribute[0].text == "kernel" for attribute in attributes):
            before = [token for token in before if token.text != "kernel"]
            self.kernel(attributes + more, before, head, body)
            return stop + 1
        self.refuse_unknown(attributes + more)
        self.out += before + tokens[head : close + 1]
        is_method = struct is not None and not {"static", "friend"}.intersection(words)
        if is_method and not rules.SPACES.intersection(token.text for token in after):
            name = "".join(words[words.index("operator") :] if "operator" in words else words[-1:])
            raise refuse(
                before[-1],
                f"`{name}` is a member function: write the address space of its object "
                "after its parameters, as in `() const thread`; in Metal 4.1 none is any memory.",
            )
        self.out += after
        if tokens[body].text == "{":
            self.bodies.append((before[-1], tokens[body : stop + 1]))
            self.body(body, stop, None)
        else:
            self.out.append(tokens[stop])
        return stop + 1

    def body(self, at: int, end: int, kernel: Kernel | None) -> None:
        """A function's statements, without the attributes that only speak of speed."""
        tokens, depth, i = self.tokens, 0, at
        wrappers = choice_wrappers(tokens, at, end)
        while i <= end:
            text = tokens[i].text
            if i in wrappers:
                self.raw(wrappers[i], tokens[i].line)
            if text == "[" and tokens[i + 1].text == "[":
                stop = closing(tokens, i)
                self.refuse_unknown(split_commas(tokens[i + 2 : stop - 1]))
                i = stop
            elif text == "threadgroup" and self.declares_variable(i):
                if kernel is None or depth != 1:
                    raise refuse(
                        tokens[i], "threadgroup variables stand in a kernel's outermost block."
                    )
                i = self.threadgroup_variable(kernel, i)
            else:
                depth += (text == "{") - (text == "}")
                self.out.append(plain_number(tokens[i]))
            i += 1

    # ---- Kernels ---------------------------------------------------------------------------------

    def kernel(
        self, attributes: list[list[Token]], before: list[Token], head: int, body: int
    ) -> None:
        tokens = self.tokens
        line = before[0].line
        if before[0].text != "void" or len(before) != 2 or tokens[body].text != "{":
            raise refuse(before[0], "a kernel is `kernel void NAME(PARAMETERS) { ... }`.")
        kernel = Kernel(before[1].text)
        if kernel.name in [other.name for other in self.kernels]:
            raise refuse(before[1], f"kernel {kernel.name} is defined twice.")
        read_max_threads(kernel, attributes)
        mark = len(self.out)
        self.out += [Token("raw", "static", line), *before, tokens[head]]
        for i, parameter in enumerate(split_commas(tokens[head + 1 : closing(tokens, head)])):
            if i:
                self.out.append(Token("sign", ",", parameter[0].line))
            self.out += read_parameter(kernel, parameter)
        self.raw(")", tokens[body].line)
        stop = closing(tokens, body)
        self.bodies.append((before[1], tokens[body : stop + 1]))
        self.body(body, stop, kernel)
        self.out.insert(mark, Token("raw", layout(kernel), line))
        self.raw("\n" + exported(kernel), tokens[stop].line)
        self.kernels.append(kernel)

    def declares_variable(self, at: int) -> bool:
        """Whether `threadgroup` at a statement's start makes a variable, and no pointer."""
        if self.tokens[at - 1].text not in (";", "{", "}"):
            return False
        i = at
        while self.tokens[i].text not in ("=", "[", "(", "*", "&", ";"):
            i += 1
        return self.tokens[i].text not in ("*", "&")

    def threadgroup_variable(self, kernel: Kernel, at: int) -> int:
        stop = self.statement_end(at) - 1
        declarators = split_commas(self.tokens[at + 1 : stop])
        words = declarators[0]
        name_at = next((i for i, t in enumerate(words) if t.text in ("[", "=")), len(words)) - 1
        kind = spelled(words[:name_at])
        declarators[0] = words[name_at:]
        for declarator in declarators:
            name, extent = declarator[0].text, spelled(declarator[1:])
            if any(token.text == "=" for token in declarator):
                raise refuse(declarator[0], f"threadgroup variable `{name}` cannot be initialised.")
            place = f"emu_threadgroup_array(emu_layout_{kernel.name}({len(kernel.arrays)}))"
            kernel.arrays.append((kind, extent))
            self.raw(
                f"__local {kind} (&{name}){extent} = *(__local {kind} (*){extent}){place};",
                declarator[0].line,
            )
        return stop
