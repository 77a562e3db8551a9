"""The Metal kernels, run from their source and launch plans by the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from far_rows import FarRows
from metal_emulator import Emulator, emulating
from problems import AttentionProblem, EmbeddingProblem, Problem, check_results, results

from mlx_esm_kernels import _ext

TESTS = Path(__file__).parents[1]

STORIES = {
    "an odd length": AttentionProblem((2, 2, 77, 16), biases=True),
    "packed proteins with NaN in padding": AttentionProblem(
        (2, 2, 90, 64), segments="runs", biases=True, poisoned=True
    ),
    "half precision": AttentionProblem((1, 2, 50, 64), dtype="float16", segments="holes"),
    "bfloat16": AttentionProblem((1, 2, 50, 80), dtype="bfloat16", segments="tail_padding"),
    "keys in threadgroup memory": AttentionProblem((1, 1, 45, 128), segments="interleaved"),
    "any strides": AttentionProblem((2, 2, 40, 24), layouts=("last_reversed",) * 4),
    "an embedding": EmbeddingProblem((2, 90, 64), segments="runs", mask_idx=32, poisoned=True),
    "an odd embedding": EmbeddingProblem((2, 33, 7), dtype="bfloat16", segments="interleaved"),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_problem_is_solved(story: str, emulator: Emulator) -> None:
    problem: Problem = STORIES[story]
    check_results(problem, results(problem, _ext))
    assert len(emulator.counts) >= 3


def test_blocks_without_a_common_segment_cost_nothing(emulator: Emulator) -> None:
    """Four proteins of 64 residues in one row: a quarter of the products and of the keys."""
    q = mx.random.normal((1, 1, 256, 16))
    ids = mx.array(np.repeat([1, 2, 3, 4], 64)[None])
    mx.eval(_ext.masked_attention(q, q, q))
    dense = emulator.counts.pop("masked_attention_fwd")
    mx.eval(_ext.masked_attention(q, q, q, segment_ids=ids))
    packed = emulator.counts["masked_attention_fwd"]
    assert packed.products * 4 == dense.products
    assert packed.read["input 1"] * 4 == dense.read["input 1"]


def test_products_and_bytes_are_the_least_for_the_tiling(emulator: Emulator) -> None:
    heads, length, dim = 2, 128, 64
    arrays = [mx.random.normal((1, heads, length, dim)) for _ in range(4)]
    mx.eval(mx.vjp(_ext.masked_attention, arrays[:3], arrays[3:])[1])
    useful = heads * (length // 8) ** 2 * (dim // 8)
    size = heads * length * dim * 4
    for kernel, products, tiles in (("fwd", 2, 32), ("bwd_dq", 3, 32), ("bwd_dkv", 4, 32)):
        counts = emulator.counts[f"masked_attention_{kernel}"]
        assert counts.products == products * useful
        passing = {"fwd": 2, "bwd_dq": 2, "bwd_dkv": 2}[kernel]  # arrays that are staged in tiles
        held = {"fwd": 1, "bwd_dq": 3, "bwd_dkv": 2}[kernel]
        rows = {"fwd": 0, "bwd_dq": 1, "bwd_dkv": 2 * length // tiles}[kernel]  # lse and delta
        least = size * (passing * length // tiles + held) + rows * heads * length * 4
        read = sum(n for name, n in counts.read.items() if not name.startswith("constants"))
        assert read <= 1.15 * least


@pytest.mark.parametrize("generation", [13, 15])
def test_every_tile_of_the_search_gives_the_right_numbers(generation: int) -> None:
    """Each candidate of one kernel at a time, the others from the table."""
    device = Emulator(orders=(0,))
    problem = AttentionProblem((1, 1, 70, 24), segments="runs", biases=True)
    with emulating(device.execute, generation):
        for kernel in ("fwd", "bwd_dq", "bwd_dkv"):
            for tiles in _ext.attention_tile_candidates(kernel, 24, mx.float32):
                _ext.set_attention_tiles(kernel, 24, mx.float32, tiles)
                check_results(problem, results(problem, _ext))
            _ext.set_attention_tiles(kernel, 24, mx.float32, None)


FAR = {
    **{f"attention, {axis}": (AttentionProblem((2, 2, 3, 8)), axis) for axis in "bhld"},
    "attention in packed proteins": (AttentionProblem((2, 2, 3, 8), segments="holes"), "l"),
    "attention in half precision": (AttentionProblem((2, 2, 3, 8), dtype="float16"), "b"),
    **{f"embedding, {axis}": (EmbeddingProblem((2, 3, 8)), axis) for axis in "blc"},
}


@pytest.mark.parametrize("name", FAR)
def test_offsets_have_64_bits(name: str, emulator: Emulator) -> None:
    problem, axis = FAR[name]
    far = FarRows(axis, emulator.execute)
    with emulating(far.execute):
        check_results(problem, results(problem, _ext))
    assert far.moved


def test_a_kernel_is_named_by_all_that_it_is_compiled_from() -> None:
    """MLX keeps compiled kernels by their names: two that share one would be one."""
    named: dict[str, set[tuple[object, ...]]] = {}

    def note(plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            made_from = (launch["source"], launch["kernel"], *launch["function_constants"])
            named.setdefault(launch["specialized_name"], set()).add(made_from)

    with emulating(note):
        for problem in (*STORIES.values(), AttentionProblem((2, 2, 77, 16), segments="runs")):
            results(problem, _ext)
    assert len(named) >= 30
    assert all(len(made_from) == 1 for made_from in named.values())
    assert len(set.union(*named.values())) == len(named)
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in named)


def test_metals_headers_meet_no_macro_of_ours(emulator: Emulator) -> None:
    sources = [*_ext.attention_sources(64, mx.float16), *_ext.embedding_sources(mx.float16)]
    for source in sources:
        first, _, ours = source.partition("#define")
        headers = "#include <metal_.*>"
        assert set(re.findall(headers, ours)) <= set(re.findall(headers, first))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dim", range(8, 136, 8))
def test_every_head_dim_that_is_served(dim: int, dtype: str, emulator: Emulator) -> None:
    problem = AttentionProblem((1, 2, 45, dim), dtype=dtype, segments="runs", biases=True, seed=dim)
    check_results(problem, results(problem, _ext))
    assert "masked_attention_bwd_dkv" in emulator.counts


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        ("ops/test_masked_attention.py",),
        ("ops/test_positional_embedding.py",),
        ("ops/test_transforms.py", "ops/test_vmap.py"),
        (
            "ops/test_determinism.py",
            "ops/test_ops.py",
            "ops/test_errors.py",
            "ops/test_composed.py",
        ),
        ("models/test_model.py",),
    ],
)
def test_the_tests_of_the_ops_pass_on_the_emulated_gpu(files: tuple[str, ...]) -> None:
    environment = os.environ | {
        "MLX_ESM_KERNELS_DEVICE": "metal-emulator",
        "MLX_ESM_KERNELS_SELF_TEST": "never",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow"]
    paths = [str(TESTS / file) for file in files]
    run = subprocess.run(
        [*command, *paths], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:]
