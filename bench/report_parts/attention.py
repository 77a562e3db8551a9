"""The report's parts on attention: its time beside torch and stock MLX, and its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import attention
import mlx.core as mx
import numpy as np
from attention import BOTH, FORWARD
from harness import measure_attention_memory
from harness.measuring import (
    Run,
    alternate,
    gemm_rate,
    gemm_runs,
    lognormal_ids,
    packed_batch,
    segment_lengths,
    undisturbed,
)

from mlx_esm_kernels import ops

from .lines import LIMIT, Line, Part, Setting, Shape, in_words, line, missing

STOCK = "mx.fast"  # what a user of MLX calls; on a CPU it is MLX's own matmul and softmax
STOCK_TARGET = 60.0


def compare(
    part: Part, work: str, ours: Run, others: dict[str, Run], flops: float, setting: Setting
) -> dict[str, float]:
    """Time them in turns and keep the timings.

    Returns:
        Each other's time over ours, and under its name with LIMIT what that would be at the GEMM
        rate; gemm: our share of that rate in %; cores: how many of those in use were busy, in %.
    """
    gemms = gemm_runs("cpu")
    runs = {"ours": ours, **others, **gemms}
    found, disturbed = undisturbed(
        lambda: alternate(runs, repeats=setting.repeats, budget_s=setting.budget_s), work
    )
    name, rate = gemm_rate({gemm: found[gemm] for gemm in gemms})
    for way in ("ours", *others):
        row = {"work": work, "way": way, "disturbed": disturbed, **asdict(found[way])}
        row |= {"rate": 1e-9 * flops / found[way].seconds, "unit": "GFLOP/s", "gemm": name}
        row["share"] = flops / found[way].seconds / rate
        part.timings.append(row)
    ratios = {way: found[way].seconds / found["ours"].seconds for way in others}
    limits = {way + LIMIT: found[way].seconds * rate / flops for way in others}
    return {
        **ratios,
        **limits,
        "gemm": 100 * flops / found["ours"].seconds / rate,
        "cores": 100 * found["ours"].cores / ops.num_threads(),
    }


def compare_attention(
    part: Part,
    shapes: list[Shape],
    direction: str,
    setting: Setting,
    ids: mx.array | None = None,
    padded: tuple[Shape, mx.array] | None = None,
    label: str = "",
) -> dict[str, dict[str, float]]:
    """`compare` for each shape: ours with torch and stock MLX, these on `padded` where given."""
    found = {}
    for shape in shapes:
        ours = attention.runs_of("ours", shape, mx.float32, ids)[direction]
        other_shape, other_ids = padded or (shape, ids)
        others = {
            way: attention.runs_of(way, other_shape, mx.float32, other_ids)[direction]
            for way in ("torch", STOCK)
            if not missing(way)
        }
        name = f"attention {in_words(shape)}{label}, {direction}"
        flops = attention.useful_flops(shape, ids, direction)
        found[in_words(shape)] = compare(part, name, ours, others, flops, setting)
    return found


def torch_lines(
    work: str, against: str, target: float, found: dict[str, dict[str, dict[str, float]]]
) -> list[Line]:
    """A line for each direction, which takes the place of {} in `work`."""
    return [line(work.format(d), against, "torch", target, found[d]) for d in (FORWARD, BOTH)]


def stock_line(work: str, found: dict[str, dict[str, dict[str, float]]]) -> Line:
    """The line about stock MLX, of both directions."""
    both = {
        f"{label} {direction}": ratios
        for direction, shapes in found.items()
        for label, ratios in shapes.items()
    }
    return line(work, "stock MLX", STOCK, STOCK_TARGET, both)


def dense(setting: Setting) -> Part:
    part = Part()
    shapes = [(1, 2, 32, 16)] if setting.quick else [(4, 20, 256, 64), (2, 20, 512, 64)]
    shapes += [] if setting.quick else [(1, 20, 1024, 64)]
    found = {d: compare_attention(part, shapes, d, setting) for d in (FORWARD, BOTH)}
    sdpa = "torch SDPA, same mask"
    part.lines = [
        line("attention forward, dense", sdpa, "torch", 1.45, found[FORWARD]),
        line("attention forward, dense", "GEMM rate", "gemm", 85.0, found[FORWARD], unit="%"),
        line("attention forward+backward, dense", sdpa, "torch", 1.5, found[BOTH]),
        stock_line("attention, dense", found),
    ]
    return part


def padded(setting: Setting) -> Part:
    part = Part()
    shape = (4, 2, 40, 16) if setting.quick else (16, 8, 600, 64)
    ids = lognormal_ids(shape[0], shape[2], 0.45)
    fill = float(np.mean(np.array(ids)))
    work = f"attention {{}}, padded, lognormal lengths, {fill:.0%} full"
    found = {
        direction: compare_attention(part, [shape], direction, setting, ids, label=" padded")
        for direction in (FORWARD, BOTH)
    }
    part.lines = torch_lines(work, "torch SDPA with that key mask", 5.0, found)
    part.lines.append(stock_line("attention, padded", found))
    return part


def narrow(setting: Setting) -> Part:
    part = Part()
    shapes = [(1, 2, 32, 16)] if setting.quick else [(16, 4, 128, 16), (8, 20, 256, 16)]
    found = {d: compare_attention(part, shapes, d, setting) for d in (FORWARD, BOTH)}
    part.lines = torch_lines("attention {}, 16 wide heads", "torch SDPA", 2.0, found)
    part.lines.append(stock_line("attention, 16 wide heads", found))
    return part


def one_head(setting: Setting) -> Part:
    part = Part()
    shapes = [(1, 1, 128, 16)] if setting.quick else [(1, 1, 4096, 64)]
    found = compare_attention(part, shapes, BOTH, setting)
    work = "attention forward+backward, one head"
    part.lines = [
        line(work, "torch SDPA", "torch", 1.4, found),
        line(work, "the cores, busy", "cores", 90.0, found, unit="%"),
        stock_line("attention, one head", {BOTH: found}),
    ]
    return part


def packed(setting: Setting) -> Part:
    part = Part()
    rows, length, heads, dim = (2, 64, 2, 16) if setting.quick else (8, 1024, 8, 64)
    batch = packed_batch(setting.proteins, rows, length)
    lengths = segment_lengths(batch.segment_ids)
    longest = int(lengths.max())
    ids = mx.array(batch.segment_ids)
    padded_ids = mx.array((np.arange(longest) < lengths[:, None]).astype(np.int32))
    shape, padded_shape = (rows, heads, length, dim), (len(lengths), heads, longest, dim)
    found = {
        direction: compare_attention(
            part, [shape], direction, setting, ids, (padded_shape, padded_ids), " packed"
        )
        for direction in (FORWARD, BOTH)
    }
    against = f"torch SDPA on the same {len(lengths)} proteins padded to the longest, {longest}"
    work = f"attention {{}}, packed {rows} x {length}, {setting.where}"
    part.lines = torch_lines(work, against, 3.0, found)
    part.lines.append(stock_line("attention, packed (stock MLX padded)", found))
    return part


def half(setting: Setting) -> Part:
    part = Part()
    shapes = [(1, 2, 32, 16)] if setting.quick else [(4, 20, 256, 64), (8, 20, 256, 16)]
    for name, dtype in (("bfloat16", mx.bfloat16), ("float16", mx.float16)):
        shares = {}
        for shape in shapes:
            run = attention.runs_of("ours", shape, dtype, None)[BOTH]
            whole = {"float32": attention.runs_of("ours", shape, mx.float32, None)[BOTH]}
            flops = attention.useful_flops(shape, None, BOTH)
            work = f"attention {in_words(shape)}, {name}, {BOTH}"
            found = compare(part, work, run, whole, flops, setting)
            shares[in_words(shape)] = 1 / found["float32"]
        part.lines.append(
            Line(
                f"attention forward+backward, {name}: time over that of float32",
                "our float32",
                0.9,
                at_most=True,
                values=shares,
            )
        )
    return part


def memory(setting: Setting) -> Part:
    length, dim = (1024, 16) if setting.quick else (16384, 64)
    script = measure_attention_memory.__file__
    command = [sys.executable, script, "1", "1", str(length), str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    outputs = 4 * length * dim * 4  # o, dq, dk, dv
    # Both what MLX's allocator gave and what the process grew by; the larger is the figure.
    beyond = max(found["allocated"], found["resident"]) - outputs
    share = 100 * beyond / (4 * length**2)
    work = f"attention forward+backward memory beyond inputs and outputs, L={length} D={dim}"
    lines = [Line(work, "the L x L matrix", 1.0, "%", True, {f"{beyond / 1e6:.1f} MB": share})]
    return Part(lines)
