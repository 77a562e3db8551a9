"""What proteins cost that no batch needs at the moment: some bytes each, however many they are."""

import tracemalloc

import numpy as np
import pytest

from mlx_esm_kernels.data import packing, proteins
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.packing import PackedBatches, batch_shape
from mlx_esm_kernels.data.proteins import Proteins, split_held_out
from mlx_esm_kernels.data.stored_table import open_table, write_about, write_table
from mlx_esm_kernels.training import recipe
from mlx_esm_kernels.training.recipe import fingerprint


def write_many(folder, count, length):
    """Random proteins; none of them is in memory afterwards."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ids = (rng.choice(ESM1B.amino_acid_ids, length) for _ in range(count))
    digests = write_table((("", one) for one in ids), folder)
    write_about(folder, {"key": folder.name, "digests": digests})


def peak_of_a_start(folder):
    """Bytes that everything takes which is made of all proteins before the first step."""
    tracemalloc.start()
    table, _ = open_table(folder, "a file")
    many = Proteins([table])
    train, _ = split_held_out(many)
    fingerprint(many)
    rows, row_length = batch_shape(
        many.lengths[train], tokens_per_batch=256, max_positions=64, num_specials=2
    )
    batches = PackedBatches(many, train, ESM1B, rows=rows, row_length=row_length, seed=0)
    next(iter(batches))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "bytes_a_protein"),
    [(20, 8), (70, 8 + 12)],
    ids=["none is cropped", "all are cropped"],
)
def test_a_start_takes_the_bytes_a_protein_that_are_promised(
    tmp_path, monkeypatch, length, bytes_a_protein
):
    for module in (packing, proteins, recipe):
        monkeypatch.setattr(module, "_BLOCK", 4096)  # else what is gone through at a time counts
    sizes = (50_000, 250_000)
    for count in sizes:
        write_many(tmp_path / str(count), count, length)
    peak_of_a_start(tmp_path / str(sizes[0]))  # imports
    few, many = (peak_of_a_start(tmp_path / str(count)) for count in sizes)
    share = 0.95  # of them are trained on; the rest are numbers of the other side
    growth = (many - few) / (sizes[1] - sizes[0])
    assert bytes_a_protein * share < growth < bytes_a_protein * 1.25
