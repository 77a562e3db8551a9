"""Preprocessed Metal source to C++ for OpenCL: tokens, the language's rules, and the rewriting."""

from metal_emulator.translate.program import Translation, translate
from metal_emulator.translate.signature import ONE_SIMDGROUP, Kernel
from metal_emulator.translate.tokens import MetalCompileError, Token, tokenize

__all__ = [
    "ONE_SIMDGROUP",
    "Kernel",
    "MetalCompileError",
    "Token",
    "Translation",
    "tokenize",
    "translate",
]
