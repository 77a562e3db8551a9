"""Generate synthetic proteins, whose true distribution is known, with a model that was trained on
them: how likely they are, whether planted pairs agree, and how fast each sampler is."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from harness.measuring import describe_machine, machine_in_words

from mlx_esm_kernels.data.alphabet import STANDARD_RESIDUES
from mlx_esm_kernels.data.synthetic import MATE, Family, make_sample
from mlx_esm_kernels.inference.generation import generate
from mlx_esm_kernels.inference.sampling import Sampling
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.weights.loading import load_model

SEED = 1
# Families have residues of next to no probability, one of which would outweigh all others.
IMPOSSIBLE = 1e-6
# Longer runs of a residue are as natural here as any other protein of the family.
SAMPLERS = {
    "unmask, random": Sampling(sampler="unmask", order="random", longest_run=0),
    "unmask, left to right": Sampling(sampler="unmask", order="left-to-right", longest_run=0),
    "unmask, 8 steps": Sampling(sampler="unmask", steps=8, longest_run=0),
    "gibbs, 20 rounds": Sampling(sampler="gibbs", longest_run=0),
    "gibbs, 100 rounds": Sampling(sampler="gibbs", rounds=100, longest_run=0),
}


@dataclass(frozen=True)
class Row:
    """One set of proteins.

    Attributes:
        way: where they come from.
        nats: mean of ln P(protein) a residue, under the family of its length, where no position
            or pair counts for less than ln IMPOSSIBLE.
        error: its standard error.
        impossible: share of positions and pairs that count so.
        pairs: share of the planted pairs whose second residue is the mate of the first.
        seconds: to generate them; None for those that were drawn from the families.
    """

    way: str
    nats: float
    error: float
    impossible: float
    pairs: float
    seconds: float | None = None


def measured(
    way: str,
    families: list[Family],
    proteins: list[npt.NDArray[np.int64]],
    seconds: float | None = None,
) -> Row:
    """The row of some proteins.

    Args:
        proteins: for each family (N, L), places in STANDARD_RESIDUES.
    """
    nats, impossible, agree = [], [], []
    for family, residues in zip(families, proteins, strict=True):
        each = family.log_probabilities(residues)
        nats.append(np.maximum(each, math.log(IMPOSSIBLE)).sum(axis=1) / len(family))
        impossible.append((each < math.log(IMPOSSIBLE)).ravel())
        first, second = (residues[:, positions] for positions in family.pairs.T)
        agree.append((MATE[first] == second).ravel())
    of_all = np.concatenate(nats)
    return Row(
        way,
        float(of_all.mean()),
        float(of_all.std(ddof=1) / np.sqrt(len(of_all))),
        float(np.concatenate(impossible).mean()),
        float(np.concatenate(agree).mean()),
        seconds,
    )


def drawn(families: list[Family], count: int) -> list[npt.NDArray[np.int64]]:
    """`count` proteins of all families together, from the families themselves."""
    rng = np.random.default_rng(SEED)
    return [family.draw(count // len(families), rng) for family in families]


def generated(
    model: ESM1, families: list[Family], count: int, sampling: Sampling
) -> tuple[list[npt.NDArray[np.int64]], float]:
    """The same from a model, which is told the lengths alone; and the seconds that it took."""
    lengths = [len(family) for family in families for _ in range(count // len(families))]
    begun = time.perf_counter()
    texts = generate(model, lengths, sampling)
    seconds = time.perf_counter() - begun
    places = [np.array([STANDARD_RESIDUES.index(letter) for letter in text]) for text in texts]
    each = count // len(families)
    return [np.stack(places[i : i + each]) for i in range(0, len(places), each)], seconds


def time_samplers(model: ESM1, count: int, length: int, repeats: int) -> list[dict[str, Any]]:
    """Residues a second of each sampler, medians of calls in turns after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for turn in range(repeats + 1):
        for name, sampling in SAMPLERS.items():
            begun = time.perf_counter()
            generate(model, [length] * count, sampling)
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return [
        {"way": name, "rate": count * length / float(np.median(some))}
        for name, some in seconds.items()
    ]


@click.command()
@click.option("--weights-file", required=True, help="Of `train` without --data.")
@click.option("--proteins", type=click.IntRange(min=8), default=1000, show_default=True)
@click.option("--time", "timed", is_flag=True, help="Time 64 proteins of 200 residues as well.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    weights_file: str, proteins: int, timed: bool, repeats: int, json_file: Path | None
) -> None:
    """Compare what a model generates with the families that it was trained on."""
    model = load_model(weights_file)
    families = make_sample(num_proteins=1).families
    about = describe_machine("cpu")
    click.echo(machine_in_words(about))
    apart = [family.without_pairs() for family in families]
    rows = [
        measured("the families themselves", families, drawn(families, proteins)),
        measured("every position on its own", families, drawn(apart, proteins)),
    ]
    for name, sampling in SAMPLERS.items():
        rows.append(measured(name, families, *generated(model, families, proteins, sampling)))
    click.echo(
        f"{proteins:,} proteins each       ln P a residue  impossible  agreeing pairs  seconds"
    )
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        click.echo(
            f"{row.way:27} {row.nats:7.3f} ± {row.error:.3f}  {row.impossible:10.2%}"
            f"  {row.pairs:14.1%}  {seconds:>7}"
        )
    rates = time_samplers(model, 64, 200, repeats) if timed else []
    for rate in rates:
        click.echo(f"{rate['way']:27} {rate['rate']:,.0f} residues/s of 64 proteins of 200")
    if json_file:
        record = {**about, "rows": [asdict(row) for row in rows], "rates": rates}
        json_file.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
