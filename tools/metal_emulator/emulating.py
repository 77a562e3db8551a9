"""Which emulated GPU the ops run on now, so that one within another gives the outer one back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlx_esm_kernels import _ext

Execute = Callable[[list[dict[str, Any]]], None]

M1 = 13  # as MLX counts generations
_in_place: list[tuple[Execute, int]] = []  # the extension does not tell what it was given


@contextmanager
def emulating(execute: Execute, generation: int = M1) -> Iterator[None]:
    """Within, ops on CPU streams give their launch plans to `execute`.

    Args:
        execute: runs a plan, such as `Emulator.execute`.
        generation: of the chip for which plans are made.
    """
    _in_place.append((execute, generation))
    _ext.emulate_metal(execute, generation)
    try:
        yield
    finally:
        _in_place.pop()
        if _in_place:
            _ext.emulate_metal(*_in_place[-1])
        else:
            _ext.emulate_metal(None)
