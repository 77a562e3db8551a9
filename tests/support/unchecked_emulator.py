"""The emulated GPU without its checks: what a wrong kernel's numbers are, as a real GPU gives them.

Races and accesses out of bounds go on unseen. What lies beyond an array is zeros here, and what
nothing has set is zeros, so that luck does not show a fault that a real GPU might hide.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from metal_emulator import FORWARD, Emulator, MetalFault
from metal_emulator import emulator as machine
from metal_emulator.compiler import Library, compile_metal

_MARGIN = 1 << 20  # bytes of zeros on either side of an array


@functools.cache
def _loaded(source: str) -> tuple[Library, ctypes.CDLL]:
    machine._runtime()
    library = compile_metal(source, "zero", checked=False)
    return library, ctypes.CDLL(str(library.path))


class UncheckedEmulator(Emulator):
    """Executes plans in one order of threads; a fault is raised only where nothing can go on."""

    def __init__(self, order: int = FORWARD) -> None:
        super().__init__(orders=(order,))

    def _execute(self, plan: list[dict[str, Any]]) -> None:
        memories = self._memories(plan)
        for launch in plan:
            self._launch(launch, memories, self.orders[0], 0)
        for name, memory in memories.items():
            if name.startswith("output"):
                address = memory.bytes.ctypes.data
                ctypes.memmove(memory.begin, address, memory.end - memory.begin)

    def _memories(self, plan: list[dict[str, Any]]) -> dict[str, Any]:
        memories = super()._memories(plan)
        for memory in memories.values():
            content = memory.bytes.copy()
            place = memory.bytes.ctypes.data
            memory.block = np.zeros(len(content) + 2 * _MARGIN, np.uint8)
            memory.start = _MARGIN + (place - memory.block.ctypes.data - _MARGIN) % machine._PAGE
            memory.bytes[:] = content
        return memories

    def _launch(
        self, launch: dict[str, Any], memories: dict[str, Any], order: int, number: int
    ) -> None:
        name = launch["kernel"]
        library, code = _loaded(launch["source"])
        native = machine._Launch(kernel=name.encode(), order=order)
        machine._bind(native, launch, library, memories)
        native.entry = ctypes.cast(code[f"emu_entry_{name}"], ctypes.c_void_p).value
        native.grid[:], native.group[:] = launch["grid"], launch["group"]
        native.threadgroup_bytes = launch["threadgroup_bytes"]
        machine._set_constants(launch, library, code)
        machine._runtime().emu_run(ctypes.byref(native))
        if native.fault:
            raise MetalFault(native.fault.decode())
