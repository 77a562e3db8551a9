"""Results repeat bit for bit: run after run, for any number of threads, from any thread."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from closeness import as_numpy
from layer_norm_problem import LayerNormProblem
from problems import (
    AttentionProblem,
    EmbeddingProblem,
    LinearProblem,
    Problem,
    check,
    results,
)
from rotary_problem import RotaryProblem

from mlx_esm_kernels import ops

PROBLEMS: dict[str, Problem] = {
    "attention": AttentionProblem((2, 3, 129, 16), segments="runs", biases=True),
    "attention_one_head": AttentionProblem((1, 1, 400, 16), biases=True),
    "attention_half": AttentionProblem((2, 4, 100, 64), dtype="bfloat16", segments="holes"),
    "embedding": EmbeddingProblem((8, 200, 100), segments="runs", mask_idx=32),
    "embedding_half": EmbeddingProblem((4, 200, 64), dtype="float16", vocabulary=5),
    "layer_norm": LayerNormProblem((8, 65), 321, residual="added"),
    "layer_norm_half": LayerNormProblem((3, 700), 64, dtype="bfloat16"),
    "linear": LinearProblem((8, 65), (96, 130)),
    "linear_gelu": LinearProblem((2, 300), (64, 256), activation="gelu"),
    "rotary": RotaryProblem((2, 5, 129, 24)),
    "rotary_half": RotaryProblem((1, 4, 400, 64), dtype="bfloat16"),
    "linear_half": LinearProblem((2, 300), (64, 100), activation="gelu", dtype="float16"),
}
every_op = pytest.mark.parametrize("name", PROBLEMS)


def digest(problem: Problem, **options: Any) -> str:
    """A hash of every bit of the output and of all gradients."""
    found = results(problem, ops, **options)
    joined = b"".join(as_numpy(found[name]).tobytes() for name in problem.names)
    return hashlib.sha256(joined).hexdigest()


@every_op
def test_repeated_runs_are_identical(name: str) -> None:
    assert len({digest(PROBLEMS[name]) for _ in range(5)}) == 1


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    def digests(threads: str) -> str:
        done = subprocess.run(
            [sys.executable, __file__],
            env=os.environ
            | {"MLX_ESM_KERNELS_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    one = digests("1")
    assert [line.split()[0] for line in one.splitlines()] == list(PROBLEMS)
    for threads in ("2", "3"):
        assert digests(threads) == one


@pytest.mark.parametrize("threads", ["0", "-1", "many", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(threads: str) -> None:
    script = (
        "import mlx.core as mx; from mlx_esm_kernels import ops\n"
        "x = mx.ones((2, 2, 100, 8))\n"
        "try:\n"
        "    mx.eval(ops.masked_attention(x, x, x))\n"
        "except (ValueError, RuntimeError) as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"MLX_ESM_KERNELS_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "MLX_ESM_KERNELS_NUM_THREADS" in said, said
    assert threads in said, said
    assert done.returncode >= 0, said  # not killed by a signal


# ---- streams and threads -------------------------------------------------------------------------


@every_op
def test_a_device_and_a_new_stream_are_accepted(name: str) -> None:
    expected = digest(PROBLEMS[name], stream=mx.cpu)
    for stream in (mx.new_stream(mx.cpu), mx.default_stream(mx.cpu)):
        assert digest(PROBLEMS[name], stream=stream) == expected


@every_op
def test_these_problems_are_solved_right(name: str) -> None:
    check(PROBLEMS[name])


@every_op
def test_the_stream_of_the_context_is_used(name: str) -> None:
    expected = digest(PROBLEMS[name])
    with mx.stream(mx.new_stream(mx.cpu)):
        assert digest(PROBLEMS[name]) == expected


@every_op
def test_results_cross_from_one_stream_to_another(name: str) -> None:
    problem = PROBLEMS[name]
    one, other = mx.new_stream(mx.cpu), mx.new_stream(mx.cpu)
    inputs = [mx.multiply(x, 1, stream=one) for x in problem.differentiable]
    outputs = [problem.call(ops, *inputs, stream=other) for _ in range(4)]
    total = mx.add(outputs[0], outputs[3], stream=one)
    expected = problem.call(ops, *problem.differentiable)
    assert mx.array_equal(total, expected + expected)


def test_all_ops_in_many_threads_at_once() -> None:
    expected = {name: digest(problem) for name, problem in PROBLEMS.items()}
    wrong: list[str] = []

    def work(names: list[str]) -> None:
        try:
            with mx.stream(mx.new_stream(mx.cpu)):
                wrong.extend(name for name in names if digest(PROBLEMS[name]) != expected[name])
        except Exception as error:  # a thread's exception would be lost otherwise
            wrong.append(repr(error))

    names = list(PROBLEMS)
    workers = [
        threading.Thread(target=work, args=(names[i:] + names[:i],)) for i in range(len(names))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


def test_a_sum_of_the_cotangents_one_hot_rows_is_the_whole_gradient() -> None:
    """Linear in the cotangent: no state is carried from one backward pass to the next."""
    problem = AttentionProblem((1, 2, 12, 4), segments="runs")
    whole = results(problem, ops)["dq"]
    parts = []
    for i in range(12):
        row = mx.where((mx.arange(12) == i)[:, None], problem.cotangent, 0)
        parts.append(results(problem.with_arrays(do=row), ops)["dq"])
    np.testing.assert_allclose(np.array(sum(parts)), np.array(whole), rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    for problem_name, one_problem in PROBLEMS.items():
        print(problem_name, digest(one_problem))
