"""Bad input is a ValueError that names the op and says what was expected and what came."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_esm_kernels import ops

B, H, L, D = 2, 3, 8, 4
V, P, C, PADDING = 33, 12, 4, 1


def attention(**changed: Any) -> None:
    x = mx.ones((B, H, L, D))
    options = {"q": x, "k": x, "v": x} | changed
    mx.eval(ops.masked_attention(**options))


def embedding(**changed: Any) -> None:
    options: dict[str, Any] = {
        "tokens": mx.full((B, L), 5),
        "token_table": mx.ones((V, C)),
        "position_table": mx.ones((P, C)),
        "padding_idx": PADDING,
    }
    mx.eval(ops.positional_embedding(**(options | changed)))


def linear(**changed: Any) -> None:
    options = {"x": mx.ones((2, 3)), "weight": mx.ones((5, 3)), "bias": mx.ones((5,))}
    mx.eval(ops.linear(**(options | changed)))


def layer_norm(**changed: Any) -> None:
    options = {"x": mx.ones((2, 3)), "weight": mx.ones((3,)), "bias": mx.ones((3,))} | changed
    op = ops.add_layer_norm if "delta" in options else ops.layer_norm
    mx.eval(op(**options))


def integers(*shape: int, dtype: mx.Dtype = mx.int32) -> mx.array:
    return mx.ones(shape).astype(dtype)


def assert_refused(
    call: Callable[..., None], op: str, changed: dict[str, Any], names: str, got: str
) -> None:
    """One sentence (or more) "[op] ... names ... got ... got." and nothing else."""
    with pytest.raises(ValueError, match=rf"^\[{op}\]") as error:
        call(**changed)
    message = str(error.value)
    assert re.fullmatch(rf"\[{op}\] [^\n]*\.", message), message
    assert re.search(rf"\b{names}\b", message), message
    said = message.partition("got ")[2]
    assert got in said, message


ONES = mx.ones((B, H, L, D))

BAD_ATTENTION = {
    "q of three axes": ({"q": mx.ones((B, L, D))}, "q", "(2, 8, 4)"),
    "q of no axes": ({"q": mx.array(1.0)}, "q", "()"),
    "k of another length": ({"k": mx.ones((B, H, L + 1, D))}, "k", "(2, 3, 9, 4)"),
    "k of another head dim": ({"k": mx.ones((B, H, L, D + 1))}, "k", "(2, 3, 8, 5)"),
    "v of fewer heads": ({"v": mx.ones((B, 1, L, D))}, "v", "(2, 1, 8, 4)"),
    "v that would broadcast": ({"v": mx.ones((1, H, L, D))}, "v", "(1, 3, 8, 4)"),
    "integer q, k, v": (dict.fromkeys("qkv", integers(B, H, L, D)), "q", "int32"),
    "complex q, k, v": (dict.fromkeys("qkv", ONES.astype(mx.complex64)), "q", "complex64"),
    "k of another dtype": ({"k": ONES.astype(mx.float16)}, "k", "float16"),
    "v of another dtype": ({"v": ONES.astype(mx.bfloat16)}, "v", "bfloat16"),
    "head dim 0": (dict.fromkeys("qkv", mx.ones((B, H, L, 0))), "D", "0"),
    "short segment_ids": ({"segment_ids": integers(B, L - 1)}, "segment_ids", "(2, 7)"),
    "flat segment_ids": ({"segment_ids": integers(L)}, "segment_ids", "(8,)"),
    "an L x L mask": ({"segment_ids": integers(B, L, L)}, "segment_ids", "(2, 8, 8)"),
    "float segment_ids": ({"segment_ids": mx.ones((B, L))}, "segment_ids", "float32"),
    "bias_k alone": ({"bias_k": mx.ones((H, D))}, "bias_v", "bias_k"),
    "bias_v alone": ({"bias_v": mx.ones((H, D))}, "bias_k", "bias_v"),
    "bias_k of another shape": (
        {"bias_k": mx.ones((H, D + 1)), "bias_v": mx.ones((H, D))},
        "bias_k",
        "(3, 5)",
    ),
    "bias_v of another shape": (
        {"bias_k": mx.ones((H, D)), "bias_v": mx.ones((1, 1, H * D))},
        "bias_v",
        "(1, 1, 12)",
    ),
    "integer biases": (
        {"bias_k": integers(H, D), "bias_v": integers(H, D)},
        "bias_k",
        "int32",
    ),
    "scale that is NaN": ({"scale": float("nan")}, "scale", "nan"),
    "scale that is infinite": ({"scale": float("inf")}, "scale", "inf"),
}

BAD_EMBEDDING = {
    "flat tokens": ({"tokens": integers(L)}, "tokens", "(8,)"),
    "float tokens": ({"tokens": mx.ones((B, L))}, "tokens", "float32"),
    "flat token_table": ({"token_table": mx.ones((V,))}, "token_table", "(33,)"),
    "integer token_table": ({"token_table": integers(V, C)}, "token_table", "int32"),
    "tables of two widths": ({"position_table": mx.ones((P, 5))}, "position_table", "(12, 5)"),
    "tables of two dtypes": (
        {"position_table": mx.ones((P, C), dtype=mx.float16)},
        "position_table",
        "float16",
    ),
    "segment_ids of another shape": ({"segment_ids": integers(B, 9)}, "segment_ids", "(2, 9)"),
    "float segment_ids": ({"segment_ids": mx.ones((B, L))}, "segment_ids", "float32"),
    "padding_idx beyond the table": ({"padding_idx": V}, "padding_idx", "33"),
    "negative padding_idx": ({"padding_idx": -1}, "padding_idx", "-1"),
    "mask_idx beyond the table": ({"mask_idx": V}, "mask_idx", "33"),
    "negative mask_idx": ({"mask_idx": -1}, "mask_idx", "-1"),
    "a token beyond the table": ({"tokens": mx.full((B, L), V)}, "tokens", "33"),
    "a negative token": ({"tokens": mx.full((B, L), -1)}, "tokens", "-1"),
    "one bad token among good ones": (
        {"tokens": mx.array([[5, 5, 5], [5, 5, 1_000_000]])},
        "tokens",
        "1000000",
    ),
    "a token that only looks small in 32 bits": (
        {"tokens": mx.full((1, 2), 2**32 + 5, dtype=mx.int64)},
        "tokens",
        str(2**32 + 5),
    ),
    "a bad token that is not evaluated yet": (
        {"tokens": mx.full((B, L), 40) + 2},
        "tokens",
        "42",
    ),
    "a sequence one longer than the table": (
        {"tokens": mx.full((1, P - PADDING), 5)},
        "position_table",
        "12",
    ),
    "a segment longer than the table": (
        {
            "tokens": mx.full((1, 20), 5),
            "segment_ids": mx.array([[1] * 4 + [2] * 12 + [3] * 4]),
        },
        "position_table",
        "12",
    ),
}

BAD_LINEAR = {
    "x of another width": ({"x": mx.ones((2, 4))}, "x", "(2, 4)"),
    "x of no axes": ({"x": mx.array(1.0)}, "x", "()"),
    "flat weight": ({"weight": mx.ones((3,))}, "weight", "(3,)"),
    "weight of three axes": ({"weight": mx.ones((1, 5, 3))}, "weight", "(1, 5, 3)"),
    "bias of another width": ({"bias": mx.ones((3,))}, "bias", "(3,)"),
    "bias of two axes": ({"bias": mx.ones((1, 5))}, "bias", "(1, 5)"),
    "integer x": ({"x": integers(2, 3)}, "x", "int32"),
    "weight of another dtype": ({"weight": mx.ones((5, 3), dtype=mx.float16)}, "weight", "float16"),
    "integer bias": ({"bias": integers(5)}, "bias", "int32"),
    "an unknown activation": ({"activation": "relu"}, "activation", "relu"),
    "an empty activation": ({"activation": ""}, "activation", '""'),
    "residual that would broadcast": ({"residual": mx.ones((1, 5))}, "residual", "(1, 5)"),
    "residual of another dtype": (
        {"residual": mx.ones((2, 5), mx.float16)},
        "residual",
        "float16",
    ),
    "GELU in capitals": ({"activation": "GELU"}, "activation", "GELU"),
}


BAD_LAYER_NORM = {
    "x of no axes": ({"x": mx.array(1.0)}, "x", "()"),
    "x of no width": ({"x": mx.ones((2, 0))}, "x", "(2, 0)"),
    "integer x": ({"x": integers(2, 3)}, "x", "int32"),
    "weight of another width": ({"weight": mx.ones((4,))}, "weight", "(4,)"),
    "integer weight": ({"weight": integers(3)}, "weight", "int32"),
    "bias of two axes": ({"bias": mx.ones((1, 3))}, "bias", "(1, 3)"),
    "integer bias": ({"bias": integers(3)}, "bias", "int32"),
    "eps of 0": ({"eps": 0.0}, "eps", "0.0"),
    "eps that is NaN": ({"eps": float("nan")}, "eps", "nan"),
    "delta that would broadcast": ({"delta": mx.ones((1, 3))}, "delta", "(1, 3)"),
    "delta of another dtype": ({"delta": mx.ones((2, 3), mx.float16)}, "delta", "float16"),
}


@pytest.mark.parametrize(("changed", "names", "got"), BAD_ATTENTION.values(), ids=BAD_ATTENTION)
def test_masked_attention_refuses(changed: dict[str, Any], names: str, got: str) -> None:
    assert_refused(attention, "masked_attention", changed, names, got)


@pytest.mark.parametrize(("changed", "names", "got"), BAD_EMBEDDING.values(), ids=BAD_EMBEDDING)
def test_positional_embedding_refuses(changed: dict[str, Any], names: str, got: str) -> None:
    assert_refused(embedding, "positional_embedding", changed, names, got)


@pytest.mark.parametrize(("changed", "names", "got"), BAD_LINEAR.values(), ids=BAD_LINEAR)
def test_linear_refuses(changed: dict[str, Any], names: str, got: str) -> None:
    assert_refused(linear, "linear", changed, names, got)


@pytest.mark.parametrize(("changed", "names", "got"), BAD_LAYER_NORM.values(), ids=BAD_LAYER_NORM)
def test_layer_norm_refuses(changed: dict[str, Any], names: str, got: str) -> None:
    assert_refused(layer_norm, "layer_norm", changed, names, got)


def test_what_the_bad_calls_were_changed_from_is_accepted() -> None:
    attention()
    attention(bias_k=mx.ones((H, D)), bias_v=mx.ones((H, D)), segment_ids=integers(B, L))
    embedding()
    embedding(mask_idx=32, segment_ids=integers(B, L), tokens=mx.full((B, L), V - 1))
    embedding(tokens=mx.full((1, P - PADDING - 1), 5))
    linear()
    linear(activation="gelu", bias=None)
    layer_norm()
    layer_norm(delta=None)


def test_tokens_where_the_segment_is_padding_may_be_anything() -> None:
    tokens, ids = mx.array([[5, -7, 10**6, 5]]), mx.array([[1, 0, 0, 1]])
    x = ops.positional_embedding(
        tokens, mx.ones((V, C)), mx.ones((P, C)), padding_idx=PADDING, segment_ids=ids
    )
    np.testing.assert_array_equal(np.array(x[0, :, 0]), [2, 0, 0, 2])


def test_bad_tokens_are_refused_on_a_given_stream_as_well() -> None:
    with pytest.raises(ValueError, match="tokens"):
        embedding(tokens=mx.full((B, L), V), stream=mx.new_stream(mx.cpu))


@pytest.mark.parametrize("evaluated", [True, False])
def test_bad_tokens_are_refused_while_differentiating_the_tables(evaluated: bool) -> None:
    def loss(table: mx.array, tokens: mx.array) -> mx.array:
        positions = mx.ones((P, C))
        return ops.positional_embedding(tokens, table, positions, padding_idx=PADDING).sum()

    tokens = mx.full((B, L), V)
    if evaluated:
        mx.eval(tokens)
    # Inside grad, values that are not there yet may be looked at as late as in the evaluation,
    # from where MLX passes every error on as a RuntimeError.
    expected = ValueError if evaluated else (ValueError, RuntimeError)
    with pytest.raises(expected, match=r"^\[positional_embedding\] tokens .*got 33"):
        mx.eval(mx.grad(loss)(mx.ones((V, C)), tokens))


# What a transformation hides can only be found on evaluation. It must be an error there, not a
# read beyond the table, and the next call must work: all in a process of its own, as a crash would
# take the tests along.
_HIDDEN = """
import mlx.core as mx
from mlx_esm_kernels import ops

tables = mx.ones((33, 4)), mx.ones((12, 4))

def embed(tokens):
    return ops.positional_embedding(tokens, *tables, padding_idx=1)

def gradient(tokens):
    return mx.grad(lambda table: ops.positional_embedding(
        tokens, table, tables[1], padding_idx=1).sum())(tables[0])

hide = {"compile": mx.compile, "vmap": lambda f: mx.vmap(lambda t: f(t[None]))}
for how in hide:
    for function in (embed, gradient):
        for bad in (mx.full((2, 8), 33), mx.full((2, 8), -10**9), mx.full((2, 11), 5)):
            try:
                mx.eval(hide[how](function)(bad))
                print("no error:", how, function.__name__, bad.tolist())
            except (ValueError, RuntimeError) as error:
                if not str(error).startswith("[positional_embedding] "):
                    print("unclear:", how, function.__name__, error)
            good = hide[how](function)(mx.full((2, 8), 5))
            if not mx.isfinite(good).all().item():
                print("wrong afterwards:", how, function.__name__)
print("alive")
"""


# MLX keeps the error of a queued task for its stream: of two tasks that fail, the second's error
# could come out of whatever is evaluated next, and after about a hundred the process hung.
_ERROR_AFTER_ERROR = """
import mlx.core as mx
from mlx_esm_kernels import ops

table = mx.ones((33, 4))
loss = lambda table, row: ops.positional_embedding(row[None], table, table, padding_idx=1).sum()
gradients = mx.vmap(mx.grad(loss), in_axes=(None, 0))
for _ in range(200):
    try:
        mx.eval(gradients(table, mx.full((32, 8), 33)))
        print("no error")
    except (ValueError, RuntimeError):
        pass
    if not mx.isfinite(gradients(table, mx.full((32, 8), 5))).all().item():
        print("wrong afterwards")
print("alive")
"""


def test_an_error_of_hidden_tokens_does_not_come_out_of_the_next_evaluation() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ERROR_AFTER_ERROR],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.splitlines(), done.returncode) == (["alive"], 0), done.stderr[-2000:]


def test_tokens_that_a_transformation_hides_are_checked_on_evaluation() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HIDDEN], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.splitlines(), done.returncode) == (["alive"], 0), done.stderr[-2000:]
