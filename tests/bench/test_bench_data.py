"""The benchmark of data: its synthetic FASTA, and that every part of it gives figures."""

from __future__ import annotations

import json
from pathlib import Path

import data as bench
import numpy as np
import pytest
from click.testing import CliRunner
from harness.synthetic_fasta import LINE, write_fasta

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.fasta import read_fasta
from mlx_esm_kernels.data.proteins import load_proteins


def test_the_synthetic_fasta_is_like_uniref50(tmp_path: Path) -> None:
    residues = write_fasta(tmp_path / "a.fasta", 9000)  # more than a block
    proteins = load_proteins(tmp_path / "a.fasta")
    assert len(proteins) == 9000
    assert proteins.lengths.sum() == residues
    assert len(np.unique(proteins.hashes)) == 9000
    assert 200 < np.median(proteins.lengths) < 240
    assert 270 < proteins.lengths.mean() < 300
    assert 0.01 < (proteins.lengths > 1022).mean() < 0.03
    counts = np.bincount(np.concatenate(list(proteins)), minlength=len(ESM1B))
    assert counts[ESM1B.amino_acid_ids].sum() == residues
    assert counts.argmax() == ESM1B.encode("L")[0]
    lines = (tmp_path / "a.fasta").read_text().splitlines()
    assert max(len(line) for line in lines if line[0] != ">") == LINE


def test_packed_it_is_the_same(tmp_path: Path) -> None:
    for name in ("a.fasta", "a.fasta.gz"):
        write_fasta(tmp_path / name, 200)
    assert list(read_fasta(tmp_path / "a.fasta")) == list(read_fasta(tmp_path / "a.fasta.gz"))
    assert (tmp_path / "a.fasta.gz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("part", ["encode", "start", "epoch"])
def test_a_part_gives_figures(tmp_path: Path, part: str) -> None:
    write_fasta(tmp_path / "a.fasta", 300)
    figures = bench.PARTS[part](tmp_path / "a.fasta", 2)
    assert figures["seconds"] > 0
    assert all(np.isfinite(value) for value in figures.values())
    if part == "epoch":
        assert 0.9 < figures["fill"] <= 1


@pytest.mark.slow
def test_it_measures_every_part_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    options = ["--sequences", "3000", "--steps", "20", "--gzip", "--json", str(file)]
    done = CliRunner().invoke(bench.main, options)
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert list(found) == [*bench.PARTS, "encode .gz"]
    assert found["encode"]["proteins"] == found["encode .gz"]["proteins"] == 3000
    assert all(figures["peak_mb"] > 20 for figures in found.values())
    assert 0 <= found["train"]["waiting"] <= 1
    assert found["train"]["first step after"] > found["train"]["of which validating"] > 0


def test_a_part_that_fails_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text("no FASTA\n")
    done = CliRunner().invoke(bench.main, ["--fasta", str(tmp_path / "a.fasta")])
    assert done.exit_code == 1
    assert "is not FASTA" in done.output
