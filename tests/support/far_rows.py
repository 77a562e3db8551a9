"""Inputs of launch plans whose rows lie farther apart than 32 bits of an offset reach.

The elements are few; between them lies memory that exists only when something touches it.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

FAR = 2**31 + 8  # elements; a multiple of four, so that rows are still read by vectors
_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux
_SIZES = {"float": 4, "half": 2, "bfloat": 2}

# By kernel: an input's slot, where its strides are in the kernel's struct of constants
# (OP/metal/params.h), and what its axes are called there.
STRIDES: dict[str, dict[int, tuple[int, str]]] = {
    "masked_attention_fwd": {slot: (32 + 32 * slot, "bhld") for slot in range(3)},
    "masked_attention_bwd_dq": {
        slot: (40 + 32 * place, "bhld") for place, slot in enumerate((0, 1, 2, 3, 5))
    },
    "masked_attention_bwd_dkv": {
        slot: (40 + 32 * place, "bhld") for slot, place in ((0, 0), (1, 1), (2, 2), (5, 4))
    },
    "rotary_turn": {0: (16, "bhld")},
    "positional_embedding_fwd": {1: (16, "lc"), 2: (32, "lc")},
    "positional_embedding_bwd_tokens": {1: (32, "blc")},
    "positional_embedding_bwd_positions": {1: (32, "blc")},
}


class FarRows:
    """Moves the inputs of plans apart, along one axis, before they are executed.

    Args:
        axis: a letter of STRIDES.
        execute: runs the changed plan.

    Attributes:
        moved: how many inputs have been moved.
    """

    def __init__(self, axis: str, execute: Callable[[list[dict[str, Any]]], None]) -> None:
        self.axis = axis
        self.moved = 0
        self._execute = execute

    def execute(self, plan: list[dict[str, Any]]) -> None:
        far: dict[str, tuple[np.ndarray, int]] = {}  # by the input's name: elements, reach in bytes
        for launch in plan:
            self._move(launch, far)
            launch["buffers"] = [
                (slot, name, at := far[name][0].ctypes.data, at, at + far[name][1], False)
                if name in far
                else (slot, name, *others)
                for slot, name, *others in launch["buffers"]
            ]
            launch["bases"] = [
                far[buffer[1]][0].ctypes.data if buffer[1] in far else base
                for buffer, base in zip(launch["buffers"], launch["bases"], strict=True)
            ]
        self.moved += len(far)
        self._execute(plan)

    def _move(self, launch: dict[str, Any], far: dict[str, tuple[np.ndarray, int]]) -> None:
        """Move the launch's inputs, tell its constants, and have it read single elements."""
        known = STRIDES.get(launch["kernel"], {})
        for slot, name, address, _, end, _ in launch["buffers"]:
            place, axes = known.get(slot, (0, ""))
            if self.axis not in axes:
                continue
            ((constants_slot, data),) = launch["constants"]
            size = next(n for word, n in _SIZES.items() if f"ELEMENT {word}\n" in launch["source"])
            old = np.frombuffer(data, np.int64, len(axes), place) * size
            new = np.where(np.array(list(axes)) == self.axis, FAR * size, old)
            if name not in far:
                far[name] = _moved_apart(address, end - address, old, new, size)
            strides = struct.pack(f"<{len(axes)}q", *(new // size))
            data = data[:place] + strides + data[place + len(strides) :]
            launch["constants"] = [(constants_slot, data)]
            if self.axis == axes[-1]:
                *others, (vectors, _) = launch["function_constants"]
                launch["function_constants"] = [*others, (vectors, False)]


def _moved_apart(
    address: int, nbytes: int, old: np.ndarray, new: np.ndarray, size: int
) -> tuple[np.ndarray, int]:
    """A copy with new strides, in bytes, of an array without gaps; and its reach in bytes."""
    order = np.argsort(-old, kind="stable")
    sizes = np.append(nbytes, old[order])
    shape = np.empty(len(old), np.int64)
    shape[order] = sizes[:-1] // sizes[1:]
    assert sizes[-1] == size
    kind = np.dtype(f"u{size}")
    reach = int((new * (shape - 1)).sum()) + size
    mapped = mmap.mmap(-1, reach, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    there = np.ndarray(shape, kind, mapped, strides=new)
    raw = (ctypes.c_uint8 * nbytes).from_address(address)
    there[...] = np.ndarray(shape, kind, raw, strides=old)
    return there, reach
