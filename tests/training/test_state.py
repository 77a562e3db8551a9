"""A training state: kept at one moment, gone back to, and gone on from by other objects."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.masked_batches import MaskedBatches
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training.loss import as_arrays
from mlx_esm_kernels.training.run import new_state
from mlx_esm_kernels.training.settings import Settings
from mlx_esm_kernels.training.state import Snapshot

TINY = ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=48)
SETTINGS = Settings(num_iters=100, learning_rate=3e-3, warmup=0)


@pytest.fixture(scope="module")
def proteins():
    """Some are cropped, so that crops count too; an epoch is four batches."""
    rng = np.random.default_rng(5)
    return Proteins.from_sequences(
        "".join(rng.choice(list(STANDARD_RESIDUES), length))
        for length in rng.integers(5, 70, size=9)
    )


def new(proteins, seed=0):
    mx.random.seed(seed)
    batches = PackedBatches(proteins, range(len(proteins)), ESM1B, rows=2, row_length=48, seed=3)
    return new_state(ESM1(TINY), batches, SETTINGS)


def take(state, steps):
    """The losses of some steps."""
    losses = []
    for _ in range(steps):
        batch = next(state.batches)
        losses.append(state.optimizer(as_arrays(batch.masked, batch.segment_ids), 3e-3)[0])
        state.step += 1
    return losses


def same(a, b):
    return all(
        mx.array_equal(x, y).item()
        for (_, x), (_, y) in zip(tree_flatten(a), tree_flatten(b), strict=True)
    )


@pytest.mark.parametrize("before", [0, 1, 3, 4, 11])
def test_from_a_snapshot_other_objects_take_the_very_same_steps(proteins, before):
    first = new(proteins)
    take(first, before)
    snapshot = first.snapshot()
    # As through a file: the numbers survive json.
    snapshot = Snapshot(snapshot.arrays, json.loads(json.dumps(snapshot.numbers)))
    losses = take(first, 9)

    second = new(proteins, seed=1)  # other weights; a place of its own in the data
    take(second, 2)
    second.restore(snapshot)
    assert second.step == before
    assert take(second, 9) == losses
    assert second.step == first.step
    assert same(first.model.parameters(), second.model.parameters())
    assert same(first.optimizer.arrays(), second.optimizer.arrays())


def test_a_snapshot_stays_what_it_was_when_training_goes_on(proteins):
    state = new(proteins)
    take(state, 2)
    snapshot = state.snapshot()
    kept = {name: np.array(array) for name, array in snapshot.arrays.items()}
    losses = take(state, 4)
    assert snapshot.numbers["step"] == 2
    for name, array in snapshot.arrays.items():
        np.testing.assert_array_equal(np.array(array), kept[name], err_msg=name)
    state.restore(snapshot)
    assert take(state, 4) == losses


def test_without_the_moments_the_place_or_the_weights_the_steps_are_others(proteins):
    state = new(proteins)
    take(state, 6)  # into the second epoch
    snapshot = state.snapshot()
    losses = take(state, 4)
    fresh = new(proteins).snapshot()

    def losses_from(changed_arrays, **changed_numbers):
        other = new(proteins)
        other.restore(
            Snapshot({**snapshot.arrays, **changed_arrays}, {**snapshot.numbers, **changed_numbers})
        )
        return take(other, 4)

    assert losses_from({}) == losses
    for prefix in ("weights.", "moment_1.", "moment_2."):
        part = {name: a for name, a in fresh.arrays.items() if name.startswith(prefix)}
        assert losses_from(part) != losses, prefix
    assert losses_from({}, optimizer_steps=0) != losses
    place = snapshot.numbers["place"]
    for key in ("epoch", "batch", "random"):
        value = fresh.numbers["place"][key]
        assert losses_from({}, place={**place, key: value, "near": None}) != losses, key
    del place["near"]  # which only makes it quick
    assert losses_from({}) == losses


def test_a_snapshot_of_another_model_is_refused_by_name(proteins):
    state = new(proteins)
    snapshot = state.snapshot()
    arrays = dict(snapshot.arrays)
    del arrays["weights.lm_head.bias"]
    with pytest.raises(ValueError, match=r"parameters of this model; .* weights\.lm_head\.bias\.$"):
        state.restore(Snapshot(arrays, snapshot.numbers))


def test_masked_batches_are_those_of_the_epochs_in_order(proteins):
    def packed():
        return PackedBatches(proteins, range(len(proteins)), ESM1B, rows=2, row_length=48, seed=3)

    batches = packed()
    expected = [batch.tokens for _ in range(3) for batch in batches]
    stream = MaskedBatches(packed(), ESM1B, 0)
    for tokens in expected:
        masked = next(stream).masked
        found = masked.inputs.copy().reshape(-1)
        count = int(masked.weights.sum())
        found[masked.positions[:count]] = masked.targets[:count]
        assert np.array_equal(found.reshape(tokens.shape), tokens)
