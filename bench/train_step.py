"""Time whole training steps: ours on packed rows, and others' on padded batches, in one run.

Proteins are a FASTA's. Ours packs them; the others get the kindest padding there is: the whole
FASTA sorted by length and cut into batches of as many tokens as ours. A few batches of each side,
evenly over the whole, are timed; the figure is real residues a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import mlx.core as mx
import mlx.optimizers
import numpy as np
from command import Options, Row, begin, benchmark_options, capturing, finish
from measuring import Run, Timing, alternate, gemm_rate, gemm_runs, undisturbed
from mlx.nn.utils import value_and_grad

from mlx_esm_kernels.alphabet import ESM1B
from mlx_esm_kernels.config import ESM1Config
from mlx_esm_kernels.data import Proteins
from mlx_esm_kernels.model import ESM1
from mlx_esm_kernels.objective import MASK_RATE, mask_tokens, masked_loss
from mlx_esm_kernels.optimization import TrainStep
from mlx_esm_kernels.packing import Batch, PackedBatches
from mlx_esm_kernels.reference import ESM1Reference
from mlx_esm_kernels.validation import as_arrays, batch_shape

SHAPES = "4x64x256x4,6x320x1280x20,6x768x3072x12"
WAYS = ("mlx", "fair-esm", "transformer-encoder")
RATE = 1e-4
DENSE_TOKENS = 256  # of each protein where batches are dense


@dataclass(frozen=True)
class Side:
    """One way to train: a step for each of its batches, and what is in them.

    Attributes:
        steps: functions that take one step each.
        lengths: for each batch, (n,) the tokens of its proteins.
        fill: share of the tokens that are not padding.
    """

    steps: list[Run]
    lengths: list[np.ndarray]
    fill: float

    @property
    def residues(self) -> int:
        """In all batches, without cls and eos."""
        return sum(int((lengths - 2).sum()) for lengths in self.lengths)

    def useful_flops(self, config: ESM1Config) -> float:
        """Of the products that forward and backward need, in all batches; padding has none.

        A matrix of N numbers costs 6 N a token; attention 14 D a pair and head, as in
        attention.py; the LM head runs on the positions that are asked for.
        """
        width = config.embed_dim
        matrices = config.num_layers * (4 * width**2 + 2 * width * config.ffn_dim)
        matrices += MASK_RATE * (width**2 + width * config.vocab_size)
        tokens = sum(float(lengths.sum()) for lengths in self.lengths)
        pairs = sum(float((lengths**2).sum()) for lengths in self.lengths)
        return 6 * matrices * tokens + 14 * config.num_layers * width * pairs


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


def length_sorted_batches(
    proteins: Proteins, config: ESM1Config, tokens: int, count: int
) -> list[Batch]:
    """All proteins sorted by length, cut into padded batches; `count` of these, evenly spread."""
    lengths = np.minimum(proteins.lengths + 2, config.max_positions)
    order = np.argsort(lengths, kind="stable")
    cut: list[list[int]] = [[]]
    for place in order.tolist():
        if cut[-1] and (len(cut[-1]) + 1) * lengths[place] > tokens:
            cut.append([])
        cut[-1].append(place)
    count = min(count, len(cut))
    chosen = [cut[int((i + 0.5) * len(cut) / count)] for i in range(count)]
    return [_padded(proteins, places, lengths[places]) for places in chosen]


def _padded(proteins: Proteins, places: list[int], lengths: np.ndarray) -> Batch:
    tokens = np.full((len(places), lengths.max()), ESM1B.padding_idx, np.int32)
    for row, (place, length) in enumerate(zip(places, lengths.tolist(), strict=True)):
        residues = proteins[place][: length - 2]
        tokens[row, :length] = [ESM1B.cls_idx, *residues, ESM1B.eos_idx]
    return Batch(tokens, (tokens != ESM1B.padding_idx).astype(np.int32))


def dense_proteins(tokens: int) -> Proteins:
    """Proteins of one length that leave no padding in anybody's batches."""
    rng = np.random.default_rng(0)
    letters = np.array([ESM1B.tokens[i] for i in ESM1B.amino_acid_ids])
    length = min(DENSE_TOKENS, tokens) - 2
    count = 4 * tokens // (length + 2)
    return Proteins.from_sequences("".join(rng.choice(letters, length)) for _ in range(count))


def side_of(
    way: str, config: ESM1Config, proteins: Proteins, tokens: int, count: int, dtype: str
) -> Side:
    """ours, mlx (the reference on packed rows), fair-esm or transformer-encoder."""
    packs = way in ("ours", "mlx")
    choose = packed_batches if packs else length_sorted_batches
    batches = choose(proteins, config, tokens, count)
    rng = np.random.default_rng(0)
    questions = [mask_tokens(b.tokens, b.segment_ids, ESM1B, rng) for b in batches]
    if packs:
        step = (_our_step if way == "ours" else _stock_step)(config, dtype)
        arrays = [
            as_arrays(question, batch.segment_ids)
            for question, batch in zip(questions, batches, strict=True)
        ]
        steps: list[Run] = [lambda x=x: step(x) for x in arrays]
    else:
        from torch_training import torch_steps

        steps = torch_steps(way, config, questions, dtype, RATE)
    ids = [batch.segment_ids for batch in batches]
    lengths = [np.concatenate([np.bincount(row)[1:] for row in rows]) for rows in ids]
    fill = sum(int((rows != 0).sum()) for rows in ids) / sum(rows.size for rows in ids)
    return Side(steps, lengths, fill)


def _our_step(config: ESM1Config, dtype: str) -> Callable[[tuple[mx.array, ...]], Any]:
    mx.random.seed(0)
    model = ESM1(config)
    model.set_dtype(getattr(mx, dtype))
    step = TrainStep(model, weight_decay=0.01, clip_norm=1.0)
    return lambda question: step(question, RATE)


def _stock_step(config: ESM1Config, dtype: str) -> Callable[[tuple[mx.array, ...]], Any]:
    """Nothing of ours: the reference model with MLX's own AdamW and clipping."""
    mx.random.seed(0)
    model = ESM1Reference(config)
    model.set_dtype(getattr(mx, dtype))
    optimizer = mlx.optimizers.AdamW(RATE, weight_decay=0.01)
    loss_and_gradients = value_and_grad(model, masked_loss)

    def step(question: tuple[mx.array, ...]) -> float:
        loss, gradients = loss_and_gradients(model, *question)
        gradients, _ = mlx.optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(loss, model.state, optimizer.state)
        return float(loss)

    return step


def time_sides(
    sides: dict[str, Side], gemms: dict[str, Run], *, repeats: int, budget_s: float
) -> tuple[dict[str, list[Timing]], tuple[str, float], bool]:
    """The timings of every batch of each side, in turns; the GEMM rate; whether disturbed."""
    found: dict[str, list[Timing]] = {way: [] for way in sides}
    rates, any_disturbed = [], False
    for side in sides.values():
        side.steps[0]()  # allocates the moments; a slow step is timed once, and not on this one
    for i in range(max(len(side.steps) for side in sides.values())):
        runs = {way: side.steps[i] for way, side in sides.items() if i < len(side.steps)}
        timed, disturbed = undisturbed(
            functools.partial(alternate, {**runs, **gemms}, repeats=repeats, budget_s=budget_s),
            f"batch {i + 1}",
        )
        rates.append(gemm_rate({name: timed[name] for name in gemms}))
        any_disturbed = any_disturbed or disturbed
        for way in runs:
            found[way].append(timed[way])
    return found, max(rates, key=lambda rate: rate[1]), any_disturbed


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
    found, (name, gemm), disturbed = time_sides(
        sides, gemm_runs(options.device), repeats=options.repeats, budget_s=budget_s
    )
    rows = []
    for way, side in sides.items():
        seconds = sum(timing.seconds for timing in found[way])
        rate = side.useful_flops(config) / seconds
        row: Row = {"shape": shape, "lengths": lengths, "direction": "training step", "way": way}
        row |= {"seconds": seconds / len(found[way]), "residues_per_s": side.residues / seconds}
        row |= {"fill": side.fill, "rate": 1e-9 * rate, "unit": "GFLOP/s", "share": rate / gemm}
        row["yardstick"] = f"the best float32 GEMM at hand, {name}: {1e-9 * gemm:.0f} billion/s"
        peak = max(timing.peak_bytes for timing in found[way])
        row["peak_bytes"] = peak if way in ("ours", "mlx") else None
        row["disturbed"] = disturbed
        row["calls"] = [timing.calls for timing in found[way]]
        rows.append(row)
    return rows


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
    finish(options, about, rows)
    for row in rows:
        click.echo(
            f"{row['shape']} {row['lengths']} {row['way']}: {row['residues_per_s']:,.0f} residues/s"
        )
    if options.capture_file:
        side = side_of(
            "ours", ESM1Config(*options.shapes[0]), proteins, tokens_per_batch, 1, options.dtype
        )
        side.steps[0]()
        with capturing(options.capture_file):
            side.steps[0]()


if __name__ == "__main__":
    main()
