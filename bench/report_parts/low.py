"""The report's parts on lower precision: bfloat16 and int8 beside our float32 and other engines."""

from __future__ import annotations

from collections.abc import Callable

import embed
import linear
import mlx.core as mx
import train_step
from attention import BOTH, FORWARD
from harness.command import Row, parse_shapes
from harness.measuring import Run

from mlx_esm_kernels import ops
from mlx_esm_kernels.inference.likelihood import TOKENS_PER_PASS

from .attention import compare
from .lines import Line, Part, Setting, Shape, in_words, line
from .models import model_options, named, residues_over

BFLOAT16, INT8 = embed.OWN_WAYS
BUDGET_S = 12.0  # of each side and batch of a model: three steps or passes of the largest
LINEAR_TARGET = 1.8
# Where the processor multiplies tiles of bfloat16, much more is to be had.
LINEAR_TARGETS = {"avx512_amx": 4.0}
PRODUCTS = {FORWARD: 1, BOTH: 3}  # of M x I x O


def linear_bfloat16(setting: Setting) -> Part:
    part = Part()
    shapes = [(40, 16, 32), (40, 32, 16)] if setting.quick else parse_shapes(linear.SHAPES, "MxIxO")
    target = LINEAR_TARGETS.get(ops.cpu_target(), LINEAR_TARGET)
    for direction, runs_of in ((FORWARD, forward_runs), (BOTH, both_runs)):
        ratios = {}
        for shape in shapes:
            runs = runs_of(shape)
            label = in_words(shape) + (" GELU" if linear.is_fc1(shape) else "")
            work = f"linear {label}, bfloat16, {direction}"
            flops = 2.0 * PRODUCTS[direction] * shape[0] * shape[1] * shape[2]
            whole = {"float32": runs["ours"]}
            ratios[label] = compare(part, work, runs["bfloat16"], whole, flops, setting)["float32"]
        # Without what it would be at the GEMM rate, which is that of float32.
        name = f"linear {direction}, bfloat16"
        part.lines.append(Line(name, "our float32", target, values=ratios))
    return part


def forward_runs(shape: Shape) -> dict[str, Run]:
    """ours and bfloat16, functions that wait for y (M, O) of the same numbers."""
    runs = linear.runs_of(["bfloat16"], shape, mx.float32)
    linear.require_agreement(runs, "float32")
    return runs


def both_runs(shape: Shape) -> dict[str, Run]:
    """The same that wait for y and the gradients of x, weight and bias, of a random cotangent."""
    rows, inputs, outputs = shape
    sizes = [(rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)]
    drawn = [mx.random.normal(size, key=mx.random.key(i)) for i, size in enumerate(sizes)]
    drawn[1] = drawn[1] * inputs**-0.5
    passes: dict[str, Run] = {
        "ours": both_pass(drawn, linear.is_fc1(shape)),
        "bfloat16": both_pass([a.astype(mx.bfloat16) for a in drawn], linear.is_fc1(shape)),
    }
    found = {way: run() for way, run in passes.items()}
    for i in range(4):
        linear.require_agreement({way: lambda y=y[i]: y for way, y in found.items()}, "float32")
    return passes


def both_pass(arrays: list[mx.array], gelu: bool) -> Callable[[], list[mx.array]]:
    """A function that waits for y, dx, dweight and dbias; arrays: x, weight, bias and dy."""
    *inputs, dy = arrays
    mx.eval(arrays)

    def forward(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
        return ops.linear(x, weight, bias, activation="gelu" if gelu else None)

    def run() -> list[mx.array]:
        outputs, gradients = mx.vjp(forward, inputs, [dy])
        mx.eval(outputs, gradients)
        return [*outputs, *gradients]

    return run


def training_bfloat16(setting: Setting) -> Part:
    rows, ratios = [], {}
    sizes = [((1, 16, 32, 2), 1)] if setting.quick else [((6, 320, 1280, 20), 3)]
    sizes += [] if setting.quick else [((6, 768, 3072, 12), 2)]
    for shape, batches in sizes:
        of_shape = train_step.measure(
            shape,
            setting.proteins,
            "real",
            model_options(shape, [BFLOAT16], setting),
            tokens=256 if setting.quick else 2048,
            count=batches,
            budget_s=setting.budget_s if setting.quick else BUDGET_S,
        )
        ratios[in_words(shape)] = residues_over(of_shape, BFLOAT16)
        rows += of_shape
    work = "training step, bfloat16"
    words = f"{work}, residues/s, {setting.where}"
    return Part([line(words, "our float32", "ours", 1.5, ratios)], named(rows, work, setting))


def embedding_low(setting: Setting) -> Part:
    rows: list[Row] = []
    of_bfloat16, of_int8 = {}, {}
    sizes = [(6, 320, 1280, 20), (12, 480, 1920, 20), (30, 640, 2560, 20)]
    for shape in [(1, 16, 32, 2)] if setting.quick else sizes:
        ways = [BFLOAT16, INT8, "esm-cpp-int8", "transformers", "transformers-bfloat16"]
        of_shape = embed.measure(
            shape,
            setting.proteins,
            "real",
            model_options(shape, ways, setting),
            tokens=256 if setting.quick else TOKENS_PER_PASS,
            count=1 if setting.quick else 2,
            budget_s=setting.budget_s if setting.quick else BUDGET_S,
            model="esm2",
            esm_cpp=setting.esm_cpp,
        )
        of_bfloat16[in_words(shape)] = residues_over(of_shape, BFLOAT16)
        of_int8[in_words(shape)] = residues_over(of_shape, INT8)
        rows += of_shape
    esm_cpp = next((row["version"] for row in rows if row["way"] == "esm-cpp-int8"), "esm-cpp")
    work = f"embedding, {{}}, ESM-2, residues/s, {setting.where}"
    against = {
        "ours": ("our float32", 1.7),
        "esm-cpp-int8": (f"int8 of {esm_cpp}", 1.5),
        "transformers": ("transformers' EsmModel, SDPA, float32", 3.0),
        "transformers-bfloat16": ("transformers' EsmModel in bfloat16, SDPA", 3.0),
    }
    lines = [
        line(work.format("bfloat16"), words, way, target, of_bfloat16)
        for way, (words, target) in against.items()
    ]
    lines.append(line(work.format("int8 weights"), "our bfloat16", BFLOAT16, 1.3, of_int8))
    return Part(lines, named(rows, "embedding, ESM-2", setting))
