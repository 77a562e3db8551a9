"""Time the way from a large FASTA file to batches, and what memory it takes.

A synthetic file is made, and each part is measured in a process of its own: encoding, a second
start, the packing of an epoch, and training that starts a second time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from harness.synthetic_fasta import write_fasta

Figures = dict[str, float]
MB = 1e6


def peak_memory() -> Figures:
    """MB: the most that this process had in memory, and what of it now is not mapped from files."""
    status = Path("/proc/self/status")
    if not status.exists():  # on a Mac, where it is in bytes
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB}
    # Not ru_maxrss: there that of the process which started this one counts.
    lines = (line.split() for line in status.read_text().splitlines())
    found = {words[0]: int(words[1]) * 1024 / MB for words in lines if words[-1] == "kB"}
    return {"peak_mb": found["VmHWM:"], "of_its_own_mb": found["RssAnon:"]}


@contextmanager
def timed(figures: Figures, name: str) -> Iterator[None]:
    """Put the seconds that the block takes into the figures, and those of the processor."""
    begun, busy = time.perf_counter(), time.process_time()
    yield
    figures[name] = time.perf_counter() - begun
    figures[f"{name} of cpu"] = time.process_time() - busy


def importing(fasta: Path, steps: int) -> Figures:
    """Nothing but the imports of `train`: what the other parts have beneath them."""
    figures: Figures = {}
    with timed(figures, "seconds"):
        import mlx_esm_kernels.commands.train  # noqa: F401
    return figures


def encode(fasta: Path, steps: int) -> Figures:
    """From FASTA to the cache."""
    from mlx_esm_kernels.data.proteins import load_proteins

    figures: Figures = {}
    with timed(figures, "seconds"):
        proteins = load_proteins(fasta)
    figures |= {"proteins": len(proteins), "residues": float(proteins.lengths.sum())}
    figures["mb_per_second"] = fasta.stat().st_size / MB / figures["seconds"]
    return figures


def start(fasta: Path, steps: int) -> Figures:
    """All that `train` does with the data of a file that is known before it takes a step."""
    from mlx_esm_kernels.data.alphabet import ESM1B
    from mlx_esm_kernels.data.corpus import open_corpus
    from mlx_esm_kernels.data.packing import batch_shape
    from mlx_esm_kernels.training.recipe import fingerprint
    from mlx_esm_kernels.training.validation import Validation

    figures: Figures = {}
    with timed(figures, "seconds"):
        with timed(figures, "open and split"):
            corpus = open_corpus([str(fasta)], [], ESM1B)
        with timed(figures, "batch shape"):
            batch_shape(
                corpus.proteins.lengths[corpus.train],
                tokens_per_batch=2048,
                max_positions=1024,
                num_specials=2,
            )
        with timed(figures, "fingerprint"):
            fingerprint(corpus.proteins)
        with timed(figures, "validation"):
            Validation(corpus.proteins, corpus.train, corpus.valid, ESM1B, max_positions=1024)
    return figures


def epoch(fasta: Path, steps: int) -> Figures:
    """All batches of an epoch, shuffled, cropped, packed and masked."""
    from mlx_esm_kernels.data.alphabet import ESM1B
    from mlx_esm_kernels.data.masked_batches import MaskedBatches
    from mlx_esm_kernels.data.packing import PackedBatches
    from mlx_esm_kernels.data.proteins import load_proteins, split_held_out

    proteins = load_proteins(fasta)
    train, _ = split_held_out(proteins)
    packed = PackedBatches(proteins, train, ESM1B, rows=2, row_length=1024, seed=0)
    batches = MaskedBatches(packed, ESM1B, 0)
    figures: Figures = {}
    residues = 0
    with timed(figures, "seconds"):
        with timed(figures, "first batch"):
            residues += next(batches).residues
        while batches.place()["epoch"] == 0:
            residues += next(batches).residues
    figures |= {"residues_per_second": residues / figures["seconds"], "fill": packed.fill}
    return figures


def train(fasta: Path, steps: int) -> Figures:
    """`train` of the small model, from a file that is known: until its first step, and some."""
    from mlx_esm_kernels.commands import train as door
    from mlx_esm_kernels.training import loop
    from mlx_esm_kernels.training.step import TrainStep

    begun, figures = time.perf_counter(), {}
    first_step, validate, validating = TrainStep.__call__, loop._validate, [0.0]

    def noting(self: TrainStep, *arguments: Any, **options: Any) -> tuple[float, float]:
        found = first_step(self, *arguments, **options)
        figures.setdefault("first step after", time.perf_counter() - begun)
        figures.setdefault("of which validating", validating[0])
        return found

    def timing(*arguments: Any) -> float | None:
        at = time.perf_counter()
        found = validate(*arguments)
        validating[0] += time.perf_counter() - at
        return found

    TrainStep.__call__, loop._validate = noting, timing  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as run:
        options = ["--data", str(fasta), "--num-iters", str(steps), "--weights-dir", run]
        options += ["--checkpoint-every", "never", "--valid-every", str(steps)]
        door.command.main(options, standalone_mode=False)
        rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    shares = [row["waiting"] for row in rows if "waiting" in row]
    # The very first row has the packing of the first proteins in it.
    later = shares[1:] or shares
    figures |= {"waiting": sum(later) / len(later), "waiting at first": shares[0]}
    return figures


PARTS: dict[str, Callable[[Path, int], Figures]] = {
    part.__name__: part for part in (importing, encode, start, epoch, train)
}


def measure(part: str, fasta: Path, cache: Path, steps: int) -> Figures:
    """The figures of a part, from a process of its own.

    Raises:
        click.ClickException: it fails.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--fasta", str(fasta), "--steps", str(steps)],
        env={**os.environ, "MLX_ESM_KERNELS_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise click.ClickException(f"{part} of {fasta} failed: {done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(part: str, figures: Figures) -> None:
    """One line a part."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in figures.items())
    click.echo(f"{part:12} {told}")


@click.command()
@click.option("--sequences", type=click.IntRange(min=100), default=5_000_000, show_default=True)
@click.option("--steps", type=click.IntRange(min=2), default=300, help="Of training.")
@click.option("--gzip", "packed", is_flag=True, help="Encode the same file packed by gzip, too.")
@click.option(
    "--fasta",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of your own instead of a synthetic one; it is encoded anew.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.option("--part", type=click.Choice(list(PARTS)), hidden=True)
def main(
    sequences: int,
    steps: int,
    packed: bool,
    fasta: Path | None,
    json_file: Path | None,
    part: str | None,
) -> None:
    """Time encoding, a second start, an epoch and training; every figure is of this machine."""
    if part is not None:
        assert fasta is not None
        figures = PARTS[part](fasta, steps)
        print(json.dumps(figures | peak_memory()))
        return
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if fasta is None:
            fasta = folder / "synthetic.fasta"
            write_fasta(fasta, sequences)
        click.echo(f"{fasta}: {fasta.stat().st_size / MB:,.1f} MB")
        time.sleep(2.1)  # a file that was just written is not known the next time
        for which in PARTS:
            found[which] = measure(which, fasta, folder / "cache", steps)
            show(which, found[which])
        if packed:
            small = folder / "synthetic.fasta.gz"
            write_fasta(small, sequences)
            found["encode .gz"] = measure("encode", small, folder / "cache", steps)
            show("encode .gz", found["encode .gz"])
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
