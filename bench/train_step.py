"""Time whole training steps: ours on packed rows, and others' on padded batches, in one run.

--dtype is of all numbers, weights included; ours-bfloat16 is `train --precision bfloat16`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import mlx.core as mx
import mlx.optimizers
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, capturing
from harness.measuring import DTYPES, Run
from harness.sides import (
    Side,
    dense_proteins,
    finish_models,
    length_sorted_batches,
    measure_sides,
    side_of_rows,
)
from mlx.nn.utils import value_and_grad

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masking import MASK_RATE, mask_tokens
from mlx_esm_kernels.data.packing import Batch, PackedBatches, batch_shape
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.models.reference import ESM1Reference
from mlx_esm_kernels.training.loss import as_arrays, masked_loss
from mlx_esm_kernels.training.step import TrainStep

SHAPES = "4x64x256x4,6x320x1280x20,6x768x3072x12"
LOW = "ours-bfloat16"
WAYS = (LOW, "mlx", "fair-esm", "transformer-encoder")
RATE = 1e-4


def useful_flops(side: Side, config: ESM1Config) -> float:
    """Of the products that forward and backward need.

    A matrix of N numbers costs 6 N a token; attention 14 D a pair and head, as in attention.py;
    the LM head runs on the masked positions.
    """
    width = config.embed_dim
    head = MASK_RATE * (width**2 + width * config.vocab_size)
    return side.useful_flops(config, per_number=6, per_pair=14, head=head)


def packed_batches(proteins: Proteins, config: ESM1Config, tokens: int, count: int) -> list[Batch]:
    """The first batches of an epoch, as the package's own training packs them."""
    rows, row_length = batch_shape(
        proteins.lengths,
        tokens_per_batch=tokens,
        max_positions=config.max_positions,
        num_specials=ESM1B.num_specials,
    )
    batches = iter(
        PackedBatches(
            proteins, np.arange(len(proteins)), ESM1B, rows=rows, row_length=row_length, seed=0
        )
    )
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def side_of(
    way: str, config: ESM1Config, proteins: Proteins, tokens: int, count: int, dtype: str
) -> Side:
    """ours, ours-bfloat16, mlx (the reference on packed rows), fair-esm or transformer-encoder."""
    packs = way in ("ours", LOW, "mlx")
    choose = packed_batches if packs else length_sorted_batches
    batches = choose(proteins, config, tokens, count)
    rng = np.random.default_rng(0)
    masked = [mask_tokens(b.tokens, b.segment_ids, ESM1B, rng) for b in batches]
    if packs:
        known = {"ours": _our_step, LOW: _our_low_step, "mlx": _stock_step}
        step = known[way](config, dtype)
        arrays = [
            as_arrays(some, batch.segment_ids) for some, batch in zip(masked, batches, strict=True)
        ]
        steps: list[Run] = [lambda x=x: step(x) for x in arrays]
    else:
        from against.torch_training import torch_steps

        steps = torch_steps(way, config, masked, dtype, RATE)
    return side_of_rows(steps, batches)


def _our_step(
    config: ESM1Config, dtype: str, precision: str = "float32"
) -> Callable[[tuple[mx.array, ...]], Any]:
    mx.random.seed(0)
    model = ESM1(config)
    model.set_dtype(getattr(mx, dtype))
    step = TrainStep(model, weight_decay=0.01, clip_norm=1.0, dtype=DTYPES[precision])
    return lambda arrays: step(arrays, RATE)


def _our_low_step(config: ESM1Config, _: str) -> Callable[[tuple[mx.array, ...]], Any]:
    """What `train --precision bfloat16` does: weights and moments are float32 whatever --dtype."""
    return _our_step(config, "float32", "bfloat16")


def _stock_step(config: ESM1Config, dtype: str) -> Callable[[tuple[mx.array, ...]], Any]:
    """Nothing of ours: the reference model with MLX's own AdamW and clipping."""
    mx.random.seed(0)
    model = ESM1Reference(config)
    model.set_dtype(getattr(mx, dtype))
    optimizer = mlx.optimizers.AdamW(RATE, weight_decay=0.01)
    loss_and_gradients = value_and_grad(model, masked_loss)

    def step(arrays: tuple[mx.array, ...]) -> float:
        loss, gradients = loss_and_gradients(model, *arrays)
        gradients, _ = mlx.optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(loss, model.state, optimizer.state)
        return float(loss)

    return step


def measure(
    shape: tuple[int, ...],
    proteins: Proteins,
    lengths: str,
    options: Options,
    *,
    tokens: int,
    count: int,
    budget_s: float = 60.0,
) -> list[Row]:
    """A row for each way; shape is (layers, C, FFN, heads)."""
    config = ESM1Config(*shape)
    sides = {
        way: side_of(way, config, proteins, tokens, count, options.dtype)
        for way in ("ours", *options.against)
    }
    about: Row = {"shape": shape, "lengths": lengths, "direction": "training step"}
    return measure_sides(sides, lambda side: useful_flops(side, config), about, options, budget_s)


@click.command()
@benchmark_options(shapes=SHAPES, sizes="layersxCxFFNxH", ways=WAYS, against="none")
@click.option("--tokens-per-batch", type=click.IntRange(min=64), default=2048)
@click.option("--batches", type=click.IntRange(min=1), default=3, help="Batches of each side.")
def main(options: Options, tokens_per_batch: int, batches: int) -> None:
    """Time training steps here; every figure is of this machine."""
    proteins, about = begin(options)
    rows = []
    for shape in options.shapes:
        for lengths, chosen in (("dense", dense_proteins(tokens_per_batch)), ("real", proteins)):
            rows += measure(shape, chosen, lengths, options, tokens=tokens_per_batch, count=batches)
    finish_models(options, about, rows)
    if options.capture_file:
        side = side_of(
            "ours", ESM1Config(*options.shapes[0]), proteins, tokens_per_batch, 1, options.dtype
        )
        side.runs[0]()
        with capturing(options.capture_file):
            side.runs[0]()


if __name__ == "__main__":
    main()
