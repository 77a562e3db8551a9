"""What the benchmarks of whole models share: a side's batches, how they are timed, their rows.

Proteins are a FASTA's. Ours packs them; the others get the kindest padding there is: the whole
FASTA sorted by length and cut into batches of as many tokens as ours. A few batches of each side,
evenly over the whole, are timed; the figure is real residues a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import numpy as np
import numpy.typing as npt

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.packing import Batch
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.config import ESM1Config

from .command import Options, Row, finish
from .measuring import Run, Timing, alternate, gemm_rate, gemm_runs, undisturbed

DENSE_TOKENS = 256  # of each protein where batches are dense
Ids = npt.NDArray[np.integer[Any]]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Side:
    """One way to do the work: a function for each of its batches, and what is in them.

    Attributes:
        runs: functions that do a batch each.
        lengths: for each batch, (n,) the tokens of its proteins.
        fill: share of the tokens that are not padding.
    """

    runs: list[Run]
    lengths: list[np.ndarray]
    fill: float

    @property
    def residues(self) -> int:
        """In all batches, without cls and eos."""
        return sum(int((lengths - 2).sum()) for lengths in self.lengths)

    def useful_flops(
        self, config: ESM1Config, *, per_number: int, per_pair: int, head: float = 0.0
    ) -> float:
        """Of the products that the work needs, in all batches; padding has none.

        Args:
            config: of the model.
            per_number: operations a token for each number of a layer's matrices.
            per_pair: operations for each number of C and pair of tokens of one protein.
            head: numbers of the matrices that a token meets beside those of the layers.
        """
        width = config.embed_dim
        matrices = config.num_layers * (4 * width**2 + 2 * width * config.ffn_dim) + head
        tokens = sum(float(lengths.sum()) for lengths in self.lengths)
        pairs = sum(float((lengths**2).sum()) for lengths in self.lengths)
        return per_number * matrices * tokens + per_pair * config.num_layers * width * pairs


def side_of_rows(runs: list[Run], batches: list[Batch]) -> Side:
    """The side whose batches are these, as (B, L) tokens with segment ids."""
    ids = [batch.segment_ids for batch in batches]
    lengths = [np.concatenate([np.bincount(row)[1:] for row in rows]) for rows in ids]
    fill = sum(int((rows != 0).sum()) for rows in ids) / sum(rows.size for rows in ids)
    return Side(runs, lengths, fill)


def spread(items: list[Item], count: int) -> list[Item]:
    """`count` of them, or all where there are fewer, evenly over the whole."""
    count = min(count, len(items))
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


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
    return [
        padded([proteins[place][: config.trained_residues] for place in places])
        for places in spread(cut, count)
    ]


def padded(proteins: list[Ids]) -> Batch:
    """A row for each protein, given as (residues,) ids, padded to the longest."""
    rows = [ESM1B.with_specials(ids) for ids in proteins]
    tokens = np.full((len(rows), max(map(len, rows))), ESM1B.padding_idx, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return Batch(tokens, (tokens != ESM1B.padding_idx).astype(np.int32))


def dense_proteins(tokens: int) -> Proteins:
    """Proteins of one length that leave no padding in anybody's batches."""
    rng = np.random.default_rng(0)
    letters = np.array([ESM1B.tokens[i] for i in ESM1B.amino_acid_ids])
    length = min(DENSE_TOKENS, tokens) - 2
    count = 4 * tokens // (length + 2)
    return Proteins.from_sequences("".join(rng.choice(letters, length)) for _ in range(count))


def time_sides(
    sides: dict[str, Side], gemms: dict[str, Run], *, repeats: int, budget_s: float
) -> tuple[dict[str, list[Timing]], tuple[str, float], bool]:
    """The timings of every batch of each side, in turns; the GEMM rate; whether disturbed."""
    found: dict[str, list[Timing]] = {way: [] for way in sides}
    rates, any_disturbed = [], False
    for side in sides.values():
        side.runs[0]()  # allocates; a slow batch is timed once, and not on this one
    for i in range(max(len(side.runs) for side in sides.values())):
        runs = {way: side.runs[i] for way, side in sides.items() if i < len(side.runs)}
        timed, disturbed = undisturbed(
            functools.partial(alternate, {**runs, **gemms}, repeats=repeats, budget_s=budget_s),
            f"batch {i + 1}",
        )
        rates.append(gemm_rate({name: timed[name] for name in gemms}))
        any_disturbed = any_disturbed or disturbed
        for way in runs:
            found[way].append(timed[way])
    return found, max(rates, key=lambda rate: rate[1]), any_disturbed


def measure_sides(
    sides: dict[str, Side],
    useful_flops: Callable[[Side], float],
    about: Row,
    options: Options,
    budget_s: float,
) -> list[Row]:
    """A row for each side: `about`, which has shape, lengths and direction, and what was found."""
    found, (name, gemm), disturbed = time_sides(
        sides, gemm_runs(options.device), repeats=options.repeats, budget_s=budget_s
    )
    rows = []
    for way, side in sides.items():
        seconds = sum(timing.seconds for timing in found[way])
        rate = useful_flops(side) / seconds
        row: Row = {**about, "way": way, "fill": side.fill}
        row |= {"seconds": seconds / len(found[way]), "residues_per_s": side.residues / seconds}
        row |= {"rate": 1e-9 * rate, "unit": "GFLOP/s", "share": rate / gemm}
        row["yardstick"] = f"the best float32 GEMM at hand, {name}: {1e-9 * gemm:.0f} billion/s"
        peak = max(timing.peak_bytes for timing in found[way])
        row["peak_bytes"] = peak if way == "mlx" or way.startswith("ours") else None
        row["disturbed"] = disturbed
        row["calls"] = [timing.calls for timing in found[way]]
        rows.append(row)
    return rows


def finish_models(options: Options, about: dict[str, Any], rows: list[Row]) -> None:
    """Print and write the rows (`command.finish`), and print the residues a second of each."""
    finish(options, about, rows)
    for row in rows:
        click.echo(
            f"{row['shape']} {row['lengths']} {row['way']}: {row['residues_per_s']:,.0f} residues/s"
        )
