"""Time the positional embedding against stock MLX (and torch), beside what memory can carry."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, capturing, finish
from harness.copies import rows_beside_copies
from harness.measuring import Run, packed_batch

from mlx_esm_kernels import ops
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.config import ESM1Config

FORWARD, BOTH = ("forward", "forward+backward")
PADDING, MASK = ESM1B.padding_idx, ESM1B.mask_idx
MASKED = 0.12  # of the residues, as in training


def tokens_of(
    shape: tuple[int, ...], proteins: Proteins | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(B, L) tokens, some of them masked, and segment ids: packed proteins, or None: full rows."""
    batch, length, _ = shape
    rng = np.random.default_rng(0)
    if proteins is None:
        tokens, ids = rng.choice(ESM1B.amino_acid_ids, (batch, length)).astype(np.int32), None
    else:
        packed = packed_batch(proteins, batch, length)
        tokens, ids = packed.tokens.copy(), packed.segment_ids
    real = tokens != PADDING
    tokens[real & (rng.random(tokens.shape) < MASKED)] = MASK
    return tokens, ids


def runs_of(
    way: str, shape: tuple[int, ...], dtype: mx.Dtype, proteins: Proteins | None
) -> dict[str, Run]:
    """Both directions as functions that wait for the result; shape is (B, L, C)."""
    _, length, width = shape
    tokens, ids = tokens_of(shape, proteins)
    sizes = ESM1Config(1, width, width, 1, max_positions=length)
    if way == "torch":
        return _torch_runs(tokens, ids, sizes, dtype)
    tables = [
        mx.random.normal((rows, width), dtype, key=mx.random.key(rows))
        for rows in (sizes.vocab_size, sizes.num_position_rows)
    ]
    do = mx.random.normal(shape, dtype, key=mx.random.key(0))
    on_device, segments = mx.array(tokens), None if ids is None else mx.array(ids)
    mx.eval(tables, do, on_device, [] if segments is None else segments)

    def forward(token_table: mx.array, position_table: mx.array) -> mx.array:
        return ops.positional_embedding(
            on_device,
            token_table,
            position_table,
            padding_idx=PADDING,
            mask_idx=MASK,
            segment_ids=segments,
            kernels=way,
        )

    return {
        FORWARD: lambda: mx.eval(forward(*tables)),
        BOTH: lambda: mx.eval(mx.vjp(forward, tables, [do])),
    }


def _torch_runs(
    tokens: np.ndarray, ids: np.ndarray | None, sizes: ESM1Config, dtype: mx.Dtype
) -> dict[str, Run]:
    """What fair-esm does in torch: two embeddings, positions by a cumulative sum, token dropout.

    It knows no packed rows, so there the positions run through and the dropout counts a row: the
    same work and the same bytes, another result.
    """
    import torch
    from torch.nn.functional import embedding

    kind = getattr(torch, str(dtype).rsplit(".", 1)[-1])
    width = sizes.embed_dim
    tables = [
        torch.randn((rows, width), dtype=kind, requires_grad=True)
        for rows in (sizes.vocab_size, sizes.num_position_rows)
    ]
    x_tokens = torch.from_numpy(tokens.astype(np.int64))
    do = torch.randn((*tokens.shape, width), dtype=kind)

    def forward() -> Any:
        real = x_tokens != PADDING
        masked = x_tokens == MASK
        x = embedding(x_tokens, tables[0], PADDING).masked_fill(masked[..., None], 0.0)
        share = (masked.sum(-1) / real.sum(-1)).to(kind)
        x = x * (0.88 / (1 - share))[:, None, None]
        positions = torch.cumsum(real.int(), 1) * real + PADDING
        x = x + embedding(positions.long(), tables[1], PADDING)
        return x * real[..., None].to(kind)

    def without_gradient() -> Any:
        with torch.no_grad():
            return forward()

    return {FORWARD: without_gradient, BOTH: lambda: torch.autograd.grad(forward(), tables, do)}


def useful_bytes(shape: tuple[int, ...], dtype: mx.Dtype, direction: str) -> int:
    """The rows of the output once, and those of its gradient once; tables stay in the caches."""
    batch, length, width = shape
    return (1 if direction == FORWARD else 2) * batch * length * width * dtype.size


def measure(shape: tuple[int, ...], proteins: Proteins | None, options: Options) -> list[Row]:
    """A row for each way and direction."""
    dtype = options.mlx_dtype
    ways = {way: runs_of(way, shape, dtype, proteins) for way in ("ours", *options.against)}
    about: Row = {"shape": shape, "lengths": "dense" if proteins is None else "real"}
    about["fill"] = float((tokens_of(shape, proteins)[0] != PADDING).mean())
    return rows_beside_copies(ways, partial(useful_bytes, shape, dtype), about, options)


@click.command()
@benchmark_options(
    shapes="4x1024x320,4x1024x1280", sizes="BxLxC", ways=("mlx", "torch"), against="mlx"
)
def main(options: Options) -> None:
    """Time the positional embedding here; every figure is of this machine."""
    proteins, about = begin(options)
    rows = []
    for shape in options.shapes:
        for chosen in (None, proteins):
            rows += measure(shape, chosen, options)
    finish(options, about, rows)
    if options.capture_file:
        run = runs_of("ours", options.shapes[0], options.mlx_dtype, proteins)[BOTH]
        run()
        with capturing(options.capture_file):
            run()


if __name__ == "__main__":
    main()
