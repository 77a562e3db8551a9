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
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def linear(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    activation: str | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
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
def linear_composed(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, gelu: bool = False
) -> mx.array: ...
def cpu_target() -> str: ...
def num_threads() -> int: ...
