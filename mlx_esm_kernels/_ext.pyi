from collections.abc import Callable
from typing import Any

import mlx.core as mx

def masked_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float | None = None,
    segment_ids: mx.array | None = None,
    bias_k: mx.array | None = None,
    bias_v: mx.array | None = None,
    fused: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def positional_embedding(
    tokens: mx.array,
    token_table: mx.array,
    position_table: mx.array,
    *,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: mx.array | None = None,
    fused: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def rotary(
    x: mx.array,
    angles: mx.array,
    *,
    fused: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def linear(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    activation: str | None = None,
    residual: mx.array | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def linears(
    x: mx.array,
    weights: list[mx.array],
    biases: list[mx.array] = ...,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> list[mx.array]: ...
def int8_linear(
    x: mx.array,
    weight: mx.array,
    scale: mx.array,
    bias: mx.array | None = None,
    *,
    activation: str | None = None,
    residual: mx.array | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def int8_linears(
    x: mx.array,
    weights: list[mx.array],
    scales: list[mx.array],
    biases: list[mx.array] = ...,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> list[mx.array]: ...
def layer_norm(
    x: mx.array,
    weight: mx.array,
    bias: mx.array,
    *,
    eps: float = 1e-5,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def add_layer_norm(
    x: mx.array,
    delta: mx.array | None,
    weight: mx.array,
    bias: mx.array,
    *,
    eps: float = 1e-5,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, mx.array]: ...
def adamw(
    weights: list[mx.array],
    gradients: list[mx.array],
    m: list[mx.array],
    v: list[mx.array],
    rates: mx.array,
    *,
    beta_1: float,
    beta_2: float,
    weight_decay: float,
    clip_norm: float,
    composed: bool = False,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[list[mx.array], list[mx.array], list[mx.array], mx.array]: ...
def masked_attention_composed(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    segment_ids: mx.array | None = None,
    bias_k: mx.array | None = None,
    bias_v: mx.array | None = None,
) -> mx.array: ...
def positional_embedding_composed(
    tokens: mx.array,
    token_table: mx.array,
    position_table: mx.array,
    padding_idx: int,
    mask_idx: int | None = None,
    segment_ids: mx.array | None = None,
) -> mx.array: ...
def rotary_composed(x: mx.array, angles: mx.array) -> mx.array: ...
def linear_composed(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, gelu: bool = False
) -> mx.array: ...
def int8_linear_composed(
    x: mx.array,
    weight: mx.array,
    scale: mx.array,
    bias: mx.array | None = None,
    gelu: bool = False,
    residual: mx.array | None = None,
) -> mx.array: ...
def layer_norm_composed(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array: ...
def cpu_target() -> str: ...
def keep_freed_memory() -> None: ...
def num_threads() -> int: ...

attention_block: int  # rows of a block of the block map

def attention_served(D: int, dtype: mx.Dtype) -> bool: ...

# Of a kernel: rows a threadgroup owns, rows it stages at a time, eights of rows of a simdgroup,
# whether bwd_dkv holds its keys, whether loads are fenced.
_Tiles = tuple[int, int, int, bool, bool]

def attention_tiles(kernel: str, D: int, dtype: mx.Dtype) -> _Tiles: ...
def attention_tile_candidates(kernel: str, D: int, dtype: mx.Dtype) -> list[_Tiles]: ...
def attention_registers(kernel: str, D: int, dtype: mx.Dtype, tiles: _Tiles) -> int: ...
def set_attention_tiles(kernel: str, D: int, dtype: mx.Dtype, tiles: _Tiles | None) -> None: ...
def set_launch_products(products: int | None) -> None: ...
def metal_chip() -> dict[str, Any] | None: ...
def runs_on_metal(stream: mx.Stream | mx.Device | None = None) -> bool: ...
def attention_sources(D: int, dtype: mx.Dtype) -> list[str]: ...
def embedding_sources(dtype: mx.Dtype) -> list[str]: ...
def rotary_sources(dtype: mx.Dtype) -> list[str]: ...
def emulate_metal(
    executor: Callable[[list[dict[str, Any]]], None] | None, generation: int = 13
) -> None: ...
