"""How long our attention and MLX's take on this machine, where tuning has timed both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import mlx.core as mx

from .. import _ext
from . import device_cache


class Timing(TypedDict):
    """Both sides' seconds for one length, [ours, MLX's].

    dense: no segment ids were given. length: L. forward_backward: of both directions together.
    """

    dense: bool
    length: int
    forward: list[float]
    forward_backward: list[float]


_known: dict[tuple[int, mx.Dtype], list[Timing]] = {}


def load(head_dim: int, dtype: mx.Dtype) -> list[Timing]:
    """What `keep` kept for this machine and source; [] where nothing is.

    The cache folder is read once in a process for each head dim and dtype.

    Args:
        head_dim: D.
        dtype: of q, k and v.
    """
    variant = (head_dim, dtype)
    if variant not in _known:
        kept = device_cache.read("timings", _key(head_dim, dtype)) or {}
        found = kept.get("timings")
        _known[variant] = list(filter(_is_timing, found)) if isinstance(found, list) else []
    return _known[variant]


def keep(head_dim: int, dtype: mx.Dtype, entries: Sequence[Timing]) -> None:
    """Keep timings for later processes, and have them serve in this one.

    They take the place of what was kept of the same lengths, dense or not; others stay.

    Args:
        head_dim: D.
        dtype: of q, k and v.
        entries: for each length that was timed.

    Raises:
        ValueError: an entry is no `Timing`, or its times are not positive.
    """
    for entry in entries:
        if not _is_timing(entry):
            raise ValueError(
                "[timings] an entry must have dense, length, and forward and forward_backward as "
                f"[our seconds, MLX's seconds]; got {entry}."
            )
    new = {(entry["dense"], entry["length"]): entry for entry in entries}
    old = [e for e in load(head_dim, dtype) if (e["dense"], e["length"]) not in new]
    timings = sorted([*old, *new.values()], key=lambda e: (not e["dense"], e["length"]))
    device_cache.write("timings", _key(head_dim, dtype), {"timings": timings})
    _known[head_dim, dtype] = timings


def _is_timing(entry: Any) -> bool:
    def positive(numbers: Any) -> bool:
        return all(isinstance(n, (int, float)) and n > 0 for n in numbers)

    try:
        pairs = [entry["forward"], entry["forward_backward"]]
        right = all(len(pair) == 2 and positive(pair) for pair in pairs)
        return right and isinstance(entry["dense"], bool) and positive([entry["length"]])
    except (KeyError, TypeError):
        return False


def _key(head_dim: int, dtype: mx.Dtype) -> dict[str, Any]:
    # The tiles in force are among the defines before a source. Timings are found whatever they
    # are; to put others in force for the key, as `tiles` does, would disturb calls that run.
    texts = _ext.attention_sources(head_dim, dtype)
    sources = [
        "\n".join(line for line in text.splitlines() if not line.startswith("#define"))
        for text in texts
    ]
    return {
        "head_dim": head_dim,
        "dtype": str(dtype),
        **device_cache.circumstances(sources),
    }
