"""Time embeddings: ours of packed proteins, and others', in one run and in turns.

The vectors of the last layer are made, and their mean over each protein's residues. All sides have
the same random weights, and must give the same vectors for a few proteins before they are timed;
those of other libraries have a process each. Batches are padded, but for esm-cpp, which packs, and
for ours, which are there in bfloat16 and with int8 weights too. A side runs in --dtype, but for
those whose name has another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
import mlx.core as mx
import numpy as np
from harness.command import Options, Row, begin, benchmark_options, capturing
from harness.measuring import Run
from harness.processes import WorkerRun, workers
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

from mlx_esm_kernels.data.packing import Batch
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.inference.embedding import Embedder
from mlx_esm_kernels.inference.likelihood import TOKENS_PER_PASS
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.models.int8 import quantize_int8
from mlx_esm_kernels.models.reference import ESM1Reference

SHAPES = "6x320x1280x20,12x480x1920x20"
MODELS = ("esm1b", "esm2")
OWN_WAYS = ("ours-bfloat16", "ours-int8")
OTHERS = ("mlx", "fair-esm", "transformers", "transformers-bfloat16", "esm-cpp", "esm-cpp-int8")
WAYS = (*OWN_WAYS, *OTHERS)
COMPARED = 3  # proteins, a short, a middling and a long one
# The largest difference of two sides, as a share of the largest number.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
INT8_TOLERANCE = 1.0  # of weights in 8 bits: that it is the same model at all
BUDGET_S = 4.0  # of a batch and side; a call longer than half of it is timed once


def useful_flops(side: Side, config: ESM1Config) -> float:
    """Of the products of the layers, forward; no side needs the LM head, though some run it.

    A matrix of N numbers costs 2 N a token; attention 4 D a pair and head.
    """
    return side.useful_flops(config, per_number=2, per_pair=4)


def residue_weights(batch: Batch) -> np.ndarray:
    """(B, 1, L) float32: times a padded batch's (B, L, C) it gives the means over residues."""
    lengths = batch.segment_ids.sum(axis=1, keepdims=True)  # (B, 1), cls and eos included
    columns = np.arange(batch.tokens.shape[1])
    inside = (columns >= 1) & (columns < lengths - 1)
    return (inside / (lengths - 2)).astype(np.float32)[:, None]


def stock_embedder(model: ESM1) -> Callable[[Batch], Run]:
    """Nothing of ours: the reference model. Its scores are L x L, so that packing would not pay.

    Returns:
        From a padded batch to a function that gives the (B, C) means of its proteins.
    """
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
    most = embedder.model.config.trained_residues
    lengths = np.minimum(proteins.lengths, most)
    groups = spread(
        list(embedder.groups(range(len(proteins)), lambda place: int(lengths[place]))), count
    )
    runs = [our_run(embedder, cropped(proteins, places, most)) for places in groups]
    return Side(runs, [lengths[places] + 2 for places in groups], 1.0)


def own_embedder(embedder: Embedder, way: str) -> Embedder:
    """The same with the same weights, in bfloat16 or with those of the layers in int8."""
    model = ESM1(embedder.model.config, embedder.model.alphabet, lazy=True)
    model.update(embedder.model.parameters())
    if way == "ours-int8":
        quantize_int8(model)
    else:
        model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    return Embedder(model, tokens_per_pass=embedder.tokens_per_pass)


def of_padded(embedder: Embedder) -> Callable[[Batch], Run]:
    """From a padded batch to a function that gives the means of its proteins, packed."""

    def prepare(batch: Batch) -> Run:
        lengths = (batch.segment_ids != 0).sum(axis=1)
        rows = zip(batch.tokens, lengths, strict=True)
        return our_run(embedder, [row[1 : length - 1] for row, length in rows])

    return prepare


def cropped(proteins: Proteins, places: Iterable[int], most: int) -> list[Ids]:
    """These proteins' residues, those beyond what a model is trained on left out."""
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

    `tolerance` is for sides of the same dtype; one whose name has another has that one's, and int8
    more room.

    Raises:
        click.ClickException: it is more than rounding explains; to time it would be of no use.
    """
    order = np.argsort(proteins.lengths, kind="stable").tolist()
    few = cropped(proteins, spread(order, COMPARED), embedder.model.config.trained_residues)
    ours = our_run(embedder, few)()
    found = {}
    for way, prepare in others.items():
        run = prepare(padded(few))
        found[way] = greatest_difference(ours, run.means() if isinstance(run, WorkerRun) else run())
        given = (
            INT8_TOLERANCE
            if way.endswith("int8")
            else TOLERANCE.get(way.rpartition("-")[2], tolerance)
        )
        if not found[way] <= given:
            raise click.ClickException(
                f"{way} does not give our vectors with our weights: they differ by "
                f"{found[way]:.1e} of the largest number, which is more than rounding."
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
    model: str = "esm1b",
    esm_cpp: str = "",
) -> list[Row]:
    """A row for each way; shape is (layers, C, FFN, heads), esm_cpp a Python that has it."""
    config = config_of(model, shape)
    embedder = embedder_of(config, options.dtype, tokens)
    apart = {way: esm_cpp if way.startswith("esm-cpp") else "" for way in options.against}
    own = {way: own_embedder(embedder, way) for way in OWN_WAYS if way in options.against}
    for here in ("mlx", *own):
        apart.pop(here, None)
    with workers(embedder.model, apart) as started:
        others = {way: one.prepare for way, one in started.items()}
        others |= {way: of_padded(one) for way, one in own.items()}
        if "mlx" in options.against:
            others["mlx"] = stock_embedder(embedder.model)
        others = {way: others[way] for way in options.against}
        differences = require_agreement(embedder, others, proteins, TOLERANCE[options.dtype])
        batches = length_sorted_batches(proteins, config, tokens, count)
        sides = {"ours": our_side(embedder, proteins, count)}
        for way, prepare in others.items():
            if way in own:
                sides[way] = our_side(own[way], proteins, count)
                continue
            sides[way] = side_of_rows([prepare(batch) for batch in batches], batches)
        about: Row = {"shape": shape, "lengths": lengths, "direction": "embedding"}
        rows = measure_sides(
            sides, lambda side: useful_flops(side, config), about, options, budget_s
        )
        for row in rows:
            row["difference"] = differences.get(row["way"])
            row["version"] = started[row["way"]].about if row["way"] in started else ""
    return rows


def config_of(model: str, shape: tuple[int, ...]) -> ESM1Config:
    """The config of MODELS with these sizes."""
    if model == "esm1b":
        return ESM1Config(*shape)
    layers, width, ffn, heads = shape
    return ESM1Config.esm2(layers, width, heads, ffn_dim=ffn)


def embedder_of(config: ESM1Config, dtype: str, tokens: int) -> Embedder:
    """Random weights, the mean of the last layer's vectors, so many tokens at a time."""
    mx.random.seed(0)
    model = ESM1(config)
    model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return Embedder(model, tokens_per_pass=tokens)


@click.command()
@benchmark_options(shapes=SHAPES, sizes="layersxCxFFNxH", ways=WAYS, against="none")
@click.option("--model", type=click.Choice(MODELS), default="esm1b", help="The architecture.")
@click.option(
    "--esm-cpp",
    default="",
    metavar="PYTHON",
    help="An interpreter that has the package esm-cpp, which wants a numpy below 2: in an "
    "environment of its own. Its model is esm2's.",
)
@click.option("--tokens-per-batch", type=click.IntRange(min=64), default=TOKENS_PER_PASS)
@click.option("--batches", type=click.IntRange(min=1), default=2, help="Real batches of each side.")
def main(options: Options, model: str, esm_cpp: str, tokens_per_batch: int, batches: int) -> None:
    """Time embeddings here; every figure is of this machine."""
    if any(way.startswith("esm-cpp") for way in options.against):
        require_esm_cpp(model, esm_cpp, options.dtype)
    proteins, about = begin(options)
    rows = []
    kind: dict[str, Any] = {"tokens": tokens_per_batch, "model": model, "esm_cpp": esm_cpp}
    for shape in options.shapes:
        # Of dense batches each is like the other.
        dense = dense_proteins(tokens_per_batch)
        rows += measure(shape, dense, "dense", options, count=1, **kind)
        rows += measure(shape, proteins, "real", options, count=batches, **kind)
    finish_models(options, about, rows)
    for way in options.against:
        of_way = [row for row in rows if row["way"] == way]
        click.echo(
            f"The vectors of {of_way[0]['version'] or way} differ from ours by at most "
            f"{max(row['difference'] for row in of_way):.1e} of the largest number."
        )
    if options.capture_file:
        config = config_of(model, options.shapes[0])
        side = our_side(embedder_of(config, options.dtype, tokens_per_batch), proteins, 1)
        side.runs[0]()
        with capturing(options.capture_file):
            side.runs[0]()


def require_esm_cpp(model: str, python: str, dtype: str) -> None:
    """Say at once what esm-cpp needs."""
    if model != "esm2" or dtype != "float32":
        raise click.BadParameter("--against esm-cpp is for --model esm2 and --dtype float32.")
    if not python:
        raise click.BadParameter("--against esm-cpp needs --esm-cpp PYTHON, see --help.")


if __name__ == "__main__":
    main()
