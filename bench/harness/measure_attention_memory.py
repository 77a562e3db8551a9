"""Forward and backward of masked_attention in a fresh process: peak memory and time as json.

Usage: python measure_attention_memory.py B H L D [segments]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import mlx.core as mx

from mlx_esm_kernels import ops


def peak_resident_bytes() -> int:
    """The most memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that starts at what the parent held when it forked.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(shape: tuple[int, ...], segments: int) -> dict[str, float]:
    """Bytes beyond what stands before the call (q, k, v, do), and seconds."""
    batch, _, length, _ = shape
    ids = mx.arange(length) * segments // length + 1 if segments else None
    if ids is not None:
        ids = mx.broadcast_to(ids, (batch, length))
    with mx.stream(mx.cpu):
        small = mx.ones((1, 1, 128, shape[3]))  # starts threads and their scratch
        mx.eval(mx.vjp(ops.masked_attention, [small] * 3, [small]))
        q, k, v, do = (mx.random.normal(shape, key=mx.random.key(i)) for i in range(4))
        mx.eval(q, k, v, do)
        mx.clear_cache()
        mx.reset_peak_memory()
        allocated, resident, start = mx.get_active_memory(), peak_resident_bytes(), time.time()

        def forward(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return ops.masked_attention(q, k, v, segment_ids=ids)

        mx.eval(mx.vjp(forward, [q, k, v], [do]))
    return {
        "allocated": mx.get_peak_memory() - allocated,
        "resident": peak_resident_bytes() - resident,
        "seconds": time.time() - start,
    }


if __name__ == "__main__":
    numbers = [int(x) for x in sys.argv[1:]]
    print(json.dumps(measure(tuple(numbers[:4]), numbers[4] if len(numbers) > 4 else 0)))
