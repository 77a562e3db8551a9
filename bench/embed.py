"""Time embeddings: ours of packed proteins, and others' of padded batches, in one run.

The vectors of the last layer are made, and their mean over each protein's residues. All sides have
the same random weights, and must give the same vectors for a few proteins before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, capturing
from harness.measuring import Run
from harness.sides import (
    Ids,
    Side,
    dense_proteins,
    finish_models,
    length_sorted_batches,
    measure_sides,
    padded,
    side_of_rows,
    spread,
)
from mlx.utils import tree_flatten

from mlx_esm_kernels.data.packing import Batch
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.inference.embedding import Embedder
from mlx_esm_kernels.inference.likelihood import TOKENS_PER_PASS
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.models.reference import ESM1Reference

SHAPES = "6x320x1280x20,12x480x1920x20"
WAYS = ("mlx", "fair-esm", "transformers")
COMPARED = 3  # proteins, a short, a middling and a long one
# The largest difference of two sides, as a share of the largest number.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
BUDGET_S = 4.0  # of a batch and side; a call longer than half of it is timed once


def useful_flops(side: Side, config: ESM1Config) -> float:
    """Of the products of the layers, forward; no side needs the LM head, though fair-esm runs it.

    A matrix of N numbers costs 2 N a token; attention 4 D a pair and head.
    """
    return side.useful_flops(config, per_number=2, per_pair=4)


def residue_weights(batch: Batch) -> np.ndarray:
    """(B, 1, L) float32: times a padded batch's (B, L, C) it gives the means over residues."""
    lengths = batch.segment_ids.sum(axis=1, keepdims=True)  # (B, 1), cls and eos included
    columns = np.arange(batch.tokens.shape[1])
    inside = (columns >= 1) & (columns < lengths - 1)
    return (inside / (lengths - 2)).astype(np.float32)[:, None]


def padded_embedder(way: str, model: ESM1) -> Callable[[Batch], Run]:
    """mlx, fair-esm or transformers with the weights of `model`.

    Returns:
        From a padded batch to a function that gives the (B, C) means of its proteins.
    """
    if way == "mlx":
        return _stock_embedder(model)
    from against.torch_embedding import torch_embedder

    weights = dict(tree_flatten(model.parameters()))
    # float32 in between, since numpy has no bfloat16; nothing is rounded.
    arrays = {name: np.array(p.astype(mx.float32)) for name, p in weights.items()}
    dtype = str(model.embed_tokens.weight.dtype).removeprefix("mlx.core.")
    embed = torch_embedder(way, model.config, arrays, dtype)
    return lambda batch: embed(batch.tokens, residue_weights(batch))


def _stock_embedder(model: ESM1) -> Callable[[Batch], Run]:
    """Nothing of ours: the reference model. Its scores are L x L, so that packing would not pay."""
    reference = ESM1Reference(model.config)
    reference.update(model.parameters())

    def prepare(batch: Batch) -> Run:
        tokens, segment_ids = mx.array(batch.tokens), mx.array(batch.segment_ids)
        weights = mx.array(residue_weights(batch))

        def run() -> mx.array:
            means = (weights @ reference.encode(tokens, segment_ids))[:, 0]
            mx.eval(means)
            return means

        return run

    return prepare


def our_run(embedder: Embedder, proteins: list[Ids]) -> Run:
    """A function that gives a group's (n, C) means, as the package's `embed` makes them."""
    (layer,) = embedder.layers
    return lambda: mx.stack([found.mean[layer] for found in embedder.run(proteins)])


def our_side(embedder: Embedder, proteins: Proteins, count: int) -> Side:
    """Some of the groups in which the package's `embed` takes the FASTA."""
    most = embedder.model.config.max_residues
    lengths = np.minimum(proteins.lengths, most)
    groups = spread(
        list(embedder.groups(range(len(proteins)), lambda place: int(lengths[place]))), count
    )
    runs = [our_run(embedder, cropped(proteins, places, most)) for places in groups]
    return Side(runs, [lengths[places] + 2 for places in groups], 1.0)


def cropped(proteins: Proteins, places: Iterable[int], most: int) -> list[Ids]:
    """These proteins' residues, those beyond the position table left out."""
    return [proteins[place][:most] for place in places]


def greatest_difference(ours: mx.array, theirs: mx.array) -> float:
    """Of two sides' vectors, as a share of the largest number; infinite where one is NaN."""
    a, b = (np.asarray(x.astype(mx.float32), np.float64) for x in (ours, mx.array(theirs)))
    difference = float(np.abs(a - b).max() / np.abs(a).max())
    return difference if np.isfinite(difference) else np.inf


def require_agreement(
    embedder: Embedder,
    others: dict[str, Callable[[Batch], Run]],
    proteins: Proteins,
    tolerance: float,
) -> dict[str, float]:
    """The difference of each other side from ours on a few proteins.

    Raises:
        click.ClickException: it is more than rounding explains; to time it would be of no use.
    """
    order = np.argsort(proteins.lengths, kind="stable").tolist()
    few = cropped(proteins, spread(order, COMPARED), embedder.model.config.max_residues)
    ours = our_run(embedder, few)()
    found = {}
    for way, prepare in others.items():
        found[way] = greatest_difference(ours, prepare(padded(few))())
        if not found[way] <= tolerance:
            raise click.ClickException(
                f"{way} does not give our vectors with our weights: they differ by "
                f"{found[way]:.1e} of the largest number, where {tolerance:.0e} is allowed."
            )
    return found


def measure(
    shape: tuple[int, ...],
    proteins: Proteins,
    lengths: str,
    options: Options,
    *,
    tokens: int,
    count: int,
    budget_s: float = BUDGET_S,
) -> list[Row]:
    """A row for each way; shape is (layers, C, FFN, heads)."""
    config = ESM1Config(*shape)
    embedder = embedder_of(config, options.dtype, tokens)
    others = {way: padded_embedder(way, embedder.model) for way in options.against}
    differences = require_agreement(embedder, others, proteins, TOLERANCE[options.dtype])
    batches = length_sorted_batches(proteins, config, tokens, count)
    sides = {"ours": our_side(embedder, proteins, count)}
    for way, prepare in others.items():
        sides[way] = side_of_rows([prepare(batch) for batch in batches], batches)
    about: Row = {"shape": shape, "lengths": lengths, "direction": "embedding"}
    rows = measure_sides(sides, lambda side: useful_flops(side, config), about, options, budget_s)
    return [{**row, "difference": differences.get(row["way"])} for row in rows]


def embedder_of(config: ESM1Config, dtype: str, tokens: int) -> Embedder:
    """Random weights, the mean of the last layer's vectors, so many tokens at a time."""
    mx.random.seed(0)
    model = ESM1(config)
    model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return Embedder(model, tokens_per_pass=tokens)


@click.command()
@benchmark_options(shapes=SHAPES, sizes="layersxCxFFNxH", ways=WAYS, against="none")
@click.option("--tokens-per-batch", type=click.IntRange(min=64), default=TOKENS_PER_PASS)
@click.option("--batches", type=click.IntRange(min=1), default=2, help="Real batches of each side.")
def main(options: Options, tokens_per_batch: int, batches: int) -> None:
    """Time embeddings here; every figure is of this machine."""
    proteins, about = begin(options)
    rows = []
    for shape in options.shapes:
        # Of dense batches each is like the other.
        dense = dense_proteins(tokens_per_batch)
        rows += measure(shape, dense, "dense", options, tokens=tokens_per_batch, count=1)
        rows += measure(shape, proteins, "real", options, tokens=tokens_per_batch, count=batches)
    finish_models(options, about, rows)
    if options.against:
        worst = max(row["difference"] for row in rows if row["difference"] is not None)
        click.echo(f"The sides' vectors differ by at most {worst:.1e} of the largest number.")
    if options.capture_file:
        config = ESM1Config(*options.shapes[0])
        side = our_side(embedder_of(config, options.dtype, tokens_per_batch), proteins, 1)
        side.runs[0]()
        with capturing(options.capture_file):
            side.runs[0]()


if __name__ == "__main__":
    main()
