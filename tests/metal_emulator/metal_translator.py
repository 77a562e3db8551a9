"""Metal source, already preprocessed, to C++ for OpenCL with one entry function per kernel.

Works on tokens. What it does not know it leaves alone, so that the compiler refuses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/|^[ ]*\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<number>\.?\d(?:[\w.]|[eE][+-])*)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>\[\[|\]\]|::|->|<<=|>>=|[-+*/%&|^!=<>]=|&&|\|\||<<|\+\+|--|.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)

# Words of C++ that Metal does not have.
_FORBIDDEN = {
    "double", "virtual", "new", "delete", "goto", "try", "catch", "throw", "dynamic_cast",
    "typeid", "std", "asm", "__asm__", "printf", "thread_local", "long double",
}  # fmt: skip

_BUILTINS = {
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threads_per_threadgroup",
    "threadgroups_per_grid",
    "threads_per_grid",
    "thread_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "threads_per_simdgroup",
}
_SPACES = ("device", "constant", "threadgroup", "thread")


class MetalCompileError(RuntimeError):
    """Source that Metal would not take; says where and why."""


@dataclass
class Token:
    """One token; `space` tokens keep the text between the others, newlines included."""

    kind: str
    text: str
    line: int


@dataclass
class Kernel:
    """What a launch needs to know of a kernel.

    Attributes:
        slots: buffer slot to address space.
        max_threads: of [[max_total_threads_per_threadgroup]]; 0 where it is not given.
    """

    name: str
    slots: dict[int, str] = field(default_factory=dict)
    max_threads: str = "0"
    arrays: int = 0


@dataclass
class Translation:
    """The text for the compiler, its kernels, and its function constants' types by index."""

    text: str
    kernels: list[Kernel]
    constants: dict[int, str]


def tokenize(source: str) -> list[Token]:
    """The tokens of a source.

    Raises:
        MetalCompileError: a byte is not ASCII, or a word is not of Metal.
    """
    tokens, line = [], 1
    for match in _TOKEN.finditer(source):
        kind, text = str(match.lastgroup), match.group()
        if not text.isascii():
            raise MetalCompileError(f"line {line}: Metal sources are ASCII; got {text!r}.")
        if kind == "space" and text.lstrip().startswith("#"):
            marker = re.match(r"\s*#\s*(?:line\s+)?(\d+)", text)
            if marker:
                line = int(marker.group(1)) - 1
        if kind == "word" and text in _FORBIDDEN:
            raise MetalCompileError(f"line {line}: Metal has no `{text}`.")
        tokens.append(Token(kind, text, line))
        line += text.count("\n")
    return tokens


class _Translator:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.out: list[str] = []
        self.kernels: list[Kernel] = []
        self.constants: dict[int, str] = {}
        self.renamed: dict[str, str] = {}
        self.vectors: set[str] = set()

    def peek(self, offset: int = 0) -> Token:
        """The offset-th token from here that is not space."""
        i = self.at
        while True:
            while i < len(self.tokens) and self.tokens[i].kind == "space":
                i += 1
            if i >= len(self.tokens):
                return Token("end", "", -1)
            if offset == 0:
                return self.tokens[i]
            offset, i = offset - 1, i + 1

    def take(self) -> Token:
        while self.tokens[self.at].kind == "space":
            self.at += 1
        self.at += 1
        return self.tokens[self.at - 1]

    def attribute(self) -> list[str]:
        """The words between [[ and ]], which are next."""
        self.take()
        inside, depth = [], 0
        while True:
            token = self.take()
            if token.text == "]]" and depth == 0:
                return inside
            depth += token.text.count("(") - token.text.count(")")
            inside.append(token.text)

    def translate(self) -> Translation:
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "space":
                self.at += 1
                self.out.append(token.text)
            elif token.text == "[[" or (token.text == "kernel" and self.peek(1).text == "void"):
                self.kernel()
            elif token.text == "constant" and self.peek(1).text == "constexpr":
                self.take()
                self.out.append("static")
            elif token.text == "constant" and self.peek(3).text == "[[":
                self.function_constant()
            else:
                self.plain()
        return Translation("".join(self.out), self.kernels, self.constants)

    def plain(self) -> None:
        token = self.take()
        if token.text == "[[":
            raise MetalCompileError(f"line {token.line}: an attribute that is not known here.")
        text = self.renamed.get(token.text, token.text)
        if token.text == "typedef" and self.peek().text == "vec":
            end = self.at
            while self.tokens[end].text != ";":
                end += 1
            self.vectors.add(self.tokens[end - 1].text)
        vector = token.text in self.vectors or re.fullmatch(
            r"(float|half|bfloat|u?int|ushort|long)[234]", token.text
        )
        if vector and self.peek().text == "(":
            text = f"emu_make<{token.text}>"
        if token.text == "using" and self.peek().text == "namespace":
            text = "using"
        self.out.append(text)

    def function_constant(self) -> None:
        self.take()
        kind, name = self.take().text, self.take().text
        words = self.attribute()
        if words[:2] != ["function_constant", "("]:
            raise MetalCompileError(f"unknown attribute {' '.join(words)} on {name}.")
        index = int(words[2])
        self.constants[index] = kind
        self.renamed[name] = f"emu_constant_{index}"
        self.out.append(f'extern "C" {{ __global {kind} emu_constant_{index}; }}')
        self.take()

    def kernel(self) -> None:
        kernel = Kernel("")
        words = self.attribute() if self.peek().text == "[[" else [self.take().text]
        if words[0] != "kernel":
            raise MetalCompileError(f"unknown attribute {' '.join(words)}.")
        if "max_total_threads_per_threadgroup" in words:
            start = words.index("max_total_threads_per_threadgroup") + 2
            kernel.max_threads = " ".join(words[start:-1])
        if self.take().text != "void":
            raise MetalCompileError("a kernel returns void.")
        kernel.name = self.take().text
        self.take()
        declared, passed = [], []
        while True:
            declaration, argument, last = self.parameter(kernel)
            declared.append(declaration)
            passed.append(argument)
            if last:
                break
        mark = len(self.out)
        sizes = self.body(kernel)
        body = "".join(self.out[mark:])
        del self.out[mark:]
        self.out.append(
            f"{' '.join(sizes)}\nstatic void {kernel.name}({', '.join(declared)}) {body}\n"
            f'extern "C" void emu_entry_{kernel.name}() '
            f"{{ {kernel.name}({', '.join(passed)}); }}\n"
            f'extern "C" uint emu_max_threads_{kernel.name}() {{ return {kernel.max_threads}; }}\n'
            f'extern "C" uint emu_threadgroup_bytes_{kernel.name}() '
            f"{{ return emu_end_{kernel.name}_{kernel.arrays}; }}\n"
        )
        self.kernels.append(kernel)

    def parameter(self, kernel: Kernel) -> tuple[str, str, bool]:
        """Declaration and argument of the next parameter, and whether it is the last."""
        words: list[str] = []
        while self.peek().text != "[[":
            words.append(self.take().text)
        attribute = self.attribute()
        last = self.take().text == ")"
        declaration, kind = " ".join(words), " ".join(words[:-1])
        if attribute[0] == "buffer":
            if words[0] not in ("device", "constant") or words[-2] not in "*&":
                raise MetalCompileError(f"{declaration} must be a device or constant pointer.")
            kernel.slots[int(attribute[2])] = words[0]
            pointer = " ".join(words[:-2]) + "*"
            star = "*" if words[-2] == "&" else ""
            call = "emu_constant_argument" if words[0] == "constant" else "emu_argument"
            return declaration, f"{star}({pointer}){call}({attribute[2]})", last
        name = attribute[0]
        if name not in _BUILTINS or len(attribute) != 1:
            raise MetalCompileError(f"unknown attribute {' '.join(attribute)} on {words[-1]}.")
        axes = int(kind[-1]) if kind[-1].isdigit() else 1
        read = [f"emu_builtin(emu_{name}, {axis})" for axis in range(axes)]
        if axes == 1:
            return declaration, f"({kind}){read[0]}", last
        return declaration, f"({kind})({', '.join(read)})", last

    def body(self, kernel: Kernel) -> list[str]:
        """Puts out the body, and gives the places of its threadgroup arrays."""
        sizes = [f"enum : uint {{ emu_end_{kernel.name}_0 = 0 }};"]
        self.out.append(self.take().text)
        depth = 1
        while depth:
            token = self.tokens[self.at]
            if token.kind == "space":
                self.at += 1
                self.out.append(token.text)
            elif token.text == "threadgroup" and self.peek(3).text == "[":
                self.threadgroup_array(kernel, sizes)
            else:
                depth += (token.text == "{") - (token.text == "}")
                self.plain()
        return sizes

    def threadgroup_array(self, kernel: Kernel, sizes: list[str]) -> None:
        self.take()
        kind, name = self.take().text, self.take().text
        size: list[str] = []
        while self.peek().text != ";":
            size.append(self.take().text)
        before, kernel.arrays = kernel.arrays, kernel.arrays + 1
        extent = " ".join(size)
        at = f"emu_at_{kernel.name}_{kernel.arrays}"
        sizes.append(
            f"enum : uint {{ {at} = (emu_end_{kernel.name}_{before} + 15u) / 16u * 16u, "
            f"emu_end_{kernel.name}_{kernel.arrays} = {at} + sizeof({kind} {extent}) }};"
        )
        self.out.append(
            f"threadgroup {kind} (&{name}) {extent} = "
            f"*(threadgroup {kind} (*) {extent})emu_threadgroup_array({at})"
        )


def translate(source: str) -> Translation:
    """C++ for OpenCL for a preprocessed Metal source.

    Raises:
        MetalCompileError: the source has something that Metal, or the emulator, does not know.
    """
    return _Translator(tokenize(source)).translate()
