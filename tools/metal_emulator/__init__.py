"""A Metal GPU on the CPU: what the kernels' source and launch plans do, checked as they do it."""

from metal_emulator.emulating import emulating
from metal_emulator.emulator import FORWARD, REVERSE, Counts, Emulator, MetalFault
from metal_emulator.translate import MetalCompileError

__all__ = [
    "FORWARD",
    "REVERSE",
    "Counts",
    "Emulator",
    "MetalCompileError",
    "MetalFault",
    "emulating",
]
