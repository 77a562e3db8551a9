"""Which of NEON's products of bytes and of bfloat16 a compiled file has."""

import struct
from pathlib import Path

# Those for vectors of 16 bytes as Arm's manual has them, whatever their registers.
REGISTERS = 0x1F << 16 | 0x1F << 5 | 0x1F
INSTRUCTIONS = {"sdot": 0x4E809400, "smmla": 0x4E80A400, "bfmmla": 0x6E40EC00}


def products_in(compiled: Path) -> set[str]:
    """Names of instructions; the file's code begins at a multiple of four bytes."""
    content = compiled.read_bytes()
    words = struct.iter_unpack("<I", content[: len(content) & ~3])
    codes = {word & ~REGISTERS for (word,) in words}
    return {name for name, code in INSTRUCTIONS.items() if code in codes}
