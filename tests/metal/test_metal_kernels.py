"""The Metal kernels, run from their source and launch plans by the emulator."""

from __future__ import annotations

import itertools
import math
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
from infinite_segment import changed_neighbours
from metal_emulator import Emulator, emulating
from outside_problem import OutsideProblem
from problems import AttentionProblem, EmbeddingProblem, Problem, check_results, results
from rotary_problem import RotaryProblem

from mlx_esm_kernels import _ext
from mlx_esm_kernels.models import reference

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
    "an embedding of what no table has": OutsideProblem((2, 90, 12), segments="runs", positions=9),
    "an odd embedding": EmbeddingProblem((2, 33, 7), dtype="bfloat16", segments="interleaved"),
    "turned heads": RotaryProblem((2, 3, 77, 16), layouts=("permuted",) * 3),
    "turned odd heads": RotaryProblem((2, 2, 33, 18), dtype="bfloat16"),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_problem_is_solved(story: str, emulator: Emulator) -> None:
    problem: Problem = STORIES[story]
    check_results(problem, results(problem, _ext))
    assert len(emulator.counts) >= (1 if isinstance(problem, RotaryProblem) else 3)


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


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["fwd", "bwd_dq", "bwd_dkv"])
def test_every_tile_of_the_search_gives_the_right_numbers(kernel: str) -> None:
    """Each candidate of one kernel at a time, the others from the table."""
    device = Emulator(orders=(0,))
    problem = AttentionProblem((1, 1, 70, 24), segments="runs", biases=True)
    with emulating(device.execute):
        candidates = _ext.attention_tile_candidates(kernel, 24, mx.float32)
        for tiles in candidates:
            _ext.set_attention_tiles(kernel, 24, mx.float32, tiles)
            check_results(problem, results(problem, _ext))
        _ext.set_attention_tiles(kernel, 24, mx.float32, None)
    assert len(candidates) >= 30


@pytest.mark.parametrize("generation", [13, 15, 17])
@pytest.mark.parametrize("dim", [16, 64, 96, 128])
def test_the_built_in_tiles_are_candidates(dim: int, generation: int) -> None:
    with emulating(lambda plan: None, generation):
        for kernel, dtype in itertools.product(
            ("fwd", "bwd_dq", "bwd_dkv"), (mx.float32, mx.float16)
        ):
            tiles = _ext.attention_tiles(kernel, dim, dtype)
            assert tiles in _ext.attention_tile_candidates(kernel, dim, dtype)


@pytest.mark.parametrize("products", [1, 300, 2000])
def test_a_launch_in_parts_gives_the_same_bits(products: int, emulator: Emulator) -> None:
    problem = AttentionProblem((3, 2, 70, 16), segments="runs", biases=True)
    whole = results(problem, _ext)
    launches: list[str] = []

    def execute(plan: list[dict[str, Any]]) -> None:
        launches.extend(launch["kernel"] for launch in plan)
        emulator.execute(plan)

    try:
        _ext.set_launch_products(products)
        with emulating(execute):
            parts = results(problem, _ext)
    finally:
        _ext.set_launch_products(None)
    for name in whole:
        assert np.array_equal(whole[name], parts[name]), name
    for kernel in ("fwd", "bwd_dq", "bwd_dkv"):
        assert launches.count(f"masked_attention_{kernel}") > 1


def test_a_launch_has_at_most_its_budget_of_products(emulator: Emulator) -> None:
    """By what the emulator counts, not by what the plan expects."""
    q = mx.random.normal((2, 3, 64, 16))
    groups: list[int] = []

    def execute(plan: list[dict[str, Any]]) -> None:
        groups.extend(math.prod(launch["grid"]) for launch in plan)
        emulator.execute(plan)

    try:
        _ext.set_launch_products(600)
        with emulating(execute):
            mx.eval(_ext.masked_attention(q, q, q))
    finally:
        _ext.set_launch_products(None)
    of_one = emulator.counts["masked_attention_fwd"].products / sum(groups)
    assert 300 < max(groups) * of_one <= 600
    assert sum(groups) * of_one == 2 * 3 * 8 * 8 * 2 * 2


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[metal\] a launch must have .* got 0\.$"):
        _ext.set_launch_products(0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [16, 64, 104])
@pytest.mark.parametrize("segments", ["runs", "interleaved"])
def test_an_infinity_stays_in_its_protein(segments: str, dim: int, dtype: str) -> None:
    with emulating(Emulator(orders=(0,)).execute):
        problem = AttentionProblem((1, 2, 70, dim), dtype=dtype, segments=segments)
        assert changed_neighbours(problem) == []


def test_the_block_map_is_made_once_for_all_layers_and_directions(emulator: Emulator) -> None:
    q = mx.random.normal((1, 1, 40, 16))
    ids = mx.array(np.repeat([1, 2], 20)[None])

    def layers(x: mx.array) -> mx.array:
        for _ in range(3):
            x = _ext.masked_attention(x, x, x, segment_ids=ids)
        return x

    launches: list[str] = []

    def execute(plan: list[dict[str, Any]]) -> None:
        launches.extend(launch["kernel"] for launch in plan)
        emulator.execute(plan)

    with emulating(execute):
        mx.eval(mx.grad(lambda x: layers(x).sum())(q))
    assert launches.count("masked_attention_fwd") == 3
    assert launches.count("masked_attention_bwd_dkv") == 3
    assert launches.count("masked_attention_map") == 1


def test_other_segments_have_a_map_of_their_own(emulator: Emulator) -> None:
    """Of an array that lies where another one lay, too."""
    q = mx.random.normal((1, 1, 64, 16))
    for halves in ([1, 2], [1, 1], [3, 0], [2, 1]):
        ids = mx.array(np.repeat(halves, 32)[None])
        found = _ext.masked_attention(q, q, q, segment_ids=ids)
        true = reference.masked_attention(q, q, q, segment_ids=ids)
        assert mx.allclose(found, true, atol=1e-5)
        del ids


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
    """MLX keeps libraries by their names, and a library's kernels: two with one name were one."""
    named: dict[tuple[str, str], set[tuple[object, ...]]] = {}

    def note(plan: list[dict[str, Any]]) -> None:
        for launch in plan:
            made_from = (launch["source"], launch["kernel"], *launch["function_constants"])
            name = launch["library"], launch["specialized_name"]
            named.setdefault(name, set()).add(made_from)

    with emulating(note):
        for problem in (*STORIES.values(), AttentionProblem((2, 2, 77, 16), segments="runs")):
            results(problem, _ext)
    assert len(named) >= 30
    assert all(len(made_from) == 1 for made_from in named.values())
    assert len(set.union(*named.values())) == len(named)
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for _, name in named)


def test_metals_headers_meet_no_macro_of_ours(emulator: Emulator) -> None:
    sources = [*_ext.attention_sources(64, mx.float16), *_ext.embedding_sources(mx.float16)]
    sources += _ext.rotary_sources(mx.float16)
    for source in sources:
        first, _, ours = source.partition("#define")
        headers = "#include <metal_.*>"
        assert set(re.findall(headers, ours)) <= set(re.findall(headers, first))


def test_remembered_segments_are_those_of_the_call_within_transformations(
    emulator: Emulator,
) -> None:
    def twice(x: mx.array, ids: mx.array, attention: Any = _ext.masked_attention) -> mx.array:
        y = attention(x, x, x, segment_ids=ids)
        return attention(y, y, y, segment_ids=ids)

    x = mx.random.normal((1, 2, 40, 16))
    captured = mx.array(np.repeat([1, 2], 20)[None])
    layer = mx.checkpoint(twice)
    functions = {
        "compiled": mx.compile(twice),
        "captured": mx.compile(lambda x, ids: twice(x, captured) + 0 * ids[:, None, :, None]),
        "gradient": mx.compile(mx.grad(lambda x, ids: layer(x, ids).sum())),
        "plain": twice,
    }
    for halves in ([1, 2], [1, 1], [0, 3], [1, 2]):
        ids = mx.array(np.repeat(halves, 20)[None])
        for name, function in functions.items():
            of = captured if name == "captured" else ids
            true = twice(x, of, reference.masked_attention)
            if name == "gradient":
                true = mx.grad(lambda x, i=of: twice(x, i, reference.masked_attention).sum())(x)
            assert mx.allclose(function(x, ids), true, atol=1e-4), (name, halves)


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
        ("ops/test_positional_embedding.py", "ops/test_rotary_op.py"),
        ("ops/test_transforms.py", "ops/test_vmap.py"),
        (
            "ops/test_determinism.py",
            "ops/test_ops.py",
            "ops/test_errors.py",
            "ops/test_composed.py",
        ),
        ("models/test_model.py", "models/test_rotary.py"),
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
