"""The objectives that mask each protein at its own rate: their loss, steps, places and bound."""

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.masked_batches import MaskedBatches, part_of
from mlx_esm_kernels.data.packing import PackedBatches
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training.loop import _step
from mlx_esm_kernels.training.loss import as_arrays, masked_loss
from mlx_esm_kernels.training.run import new_state
from mlx_esm_kernels.training.schedule import Schedule
from mlx_esm_kernels.training.settings import Progress, Settings
from mlx_esm_kernels.training.state import Snapshot
from mlx_esm_kernels.training.step import TrainStep
from mlx_esm_kernels.training.validation import Validation

OBJECTIVES = ("mlm", "diffusion", "mixed")
TINY = ESM1Config(
    num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=48, token_dropout=False
)


@pytest.fixture(scope="module")
def proteins():
    rng = np.random.default_rng(5)
    return Proteins.from_sequences(
        "".join(rng.choice(list(STANDARD_RESIDUES), length)) for length in rng.integers(2, 70, 40)
    )


def packed(proteins, rows=4):
    return PackedBatches(proteins, range(len(proteins)), ESM1B, rows=rows, row_length=48, seed=3)


def batches(proteins, objective, seed=0):
    return MaskedBatches(packed(proteins), ESM1B, seed, objective=objective)


def new_model(seed=3):
    mx.random.seed(seed)
    return ESM1(TINY)


def loss_of(model, batch):
    return masked_loss(model, *as_arrays(batch.masked, batch.segment_ids)).item()


@given(seed=st.integers(0, 2**32 - 1), objective=st.sampled_from(OBJECTIVES[1:]))
def test_the_loss_is_the_sum_over_proteins_that_float64_numpy_computes(proteins, seed, objective):
    """Of diffusion: of each protein n / k of the nats of its k targets; over all n."""
    batch = next(batches(proteins, objective, seed))
    model, masked = new_model(), batch.masked
    found = model(mx.array(masked.inputs), mx.array(batch.segment_ids))["logits"]
    z = np.array(found, dtype=np.float64)
    true = masked.inputs.copy()
    used = masked.weights > 0
    true.reshape(-1)[masked.positions[used]] = masked.targets[used]

    nats_of_proteins, sizes, counts = [], [], []
    for row, ids in enumerate(batch.segment_ids):
        for segment in range(1, ids.max() + 1):
            places = np.flatnonzero((ids == segment) & masked.is_target[row])
            logits = z[row, places]
            at_true = logits[np.arange(len(places)), true[row, places]]
            nats = np.log(np.exp(logits).sum(axis=1)) - at_true
            nats_of_proteins.append(nats.sum())
            sizes.append((ids == segment).sum() - 2)  # less cls and eos
            counts.append(len(places))
    if objective == "diffusion":
        expected = np.dot(np.array(sizes) / counts, nats_of_proteins) / np.sum(sizes)
    else:
        expected = np.sum(nats_of_proteins) / np.sum(counts)
    assert loss_of(model, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_parts_of_a_batch_count_by_their_weights(proteins, objective):
    """As several processes take them."""
    whole, model = next(batches(proteins, objective)), new_model()
    parts = [
        part_of(whole, number, 3, ESM1B.padding_idx, rates_vary=objective != "mlm")
        for number in range(3)
    ]
    shares = [part.masked.weight / part.weight for part in parts]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    together = np.dot(shares, [loss_of(model, part) for part in parts])
    assert together == pytest.approx(loss_of(model, whole), rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_accumulated_step_is_that_of_one_large_batch(proteins, objective):
    settings = Settings(
        num_iters=9, learning_rate=1e-3, warmup=0, accumulation=3, objective=objective
    )
    taken = batches(proteins, objective, (settings.seed, 0))
    three = [next(taken) for _ in range(3)]
    state = new_state(new_model(), packed(proteins), settings)
    event = _step(state, Schedule(settings, Progress(), lambda: 0.0), 0)

    arrays = zip(*(as_arrays(b.masked, b.segment_ids) for b in three), strict=True)
    inputs, ids, positions, targets, weights = arrays
    offsets = np.arange(3) * inputs[0].size
    moved = [x + int(offset) for x, offset in zip(positions, offsets, strict=True)]
    one = TrainStep(new_model(), weight_decay=settings.weight_decay, clip_norm=1.0)
    large = tuple(map(mx.concatenate, (inputs, ids, moved, targets, weights)))
    loss, _ = one(large, event.rate)
    assert event.loss == pytest.approx(loss, rel=1e-5)
    expected, got = (dict(tree_flatten(m.parameters())) for m in (one.model, state.model))
    for name in expected:
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding alone
            np.testing.assert_allclose(got[name], expected[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("before", [0, 4])
def test_from_a_snapshot_the_very_same_steps_are_taken(proteins, objective, before):
    settings = Settings(num_iters=99, learning_rate=3e-3, warmup=0, objective=objective)

    def take(state, steps):
        schedule = Schedule(settings, Progress(), lambda: 0.0)
        return [_step(state, schedule, 1).loss for _ in range(steps)]

    first = new_state(new_model(), packed(proteins), settings)
    take(first, before)
    snapshot = first.snapshot()
    snapshot = Snapshot(snapshot.arrays, json.loads(json.dumps(snapshot.numbers)))
    losses = take(first, 6)
    second = new_state(new_model(seed=1), packed(proteins), settings)
    take(second, 1)
    second.restore(snapshot)
    assert take(second, 6) == losses


def validation(proteins, **options):
    count = len(proteins)
    return Validation(
        proteins, range(10), range(10, count), ESM1B, max_positions=48, max_tokens=800, **options
    )


def test_validation_is_of_fifteen_percent_for_every_objective_with_a_bound_beside(proteins):
    plain, beside = validation(proteins), validation(proteins, with_bound=True)
    model = new_model()
    assert list(plain.losses(model)) == list(beside.losses(model))
    assert list(plain.bound_losses(model)) == []
    bound = sum(beside.bound_losses(model))
    assert bound == sum(validation(proteins, with_bound=True).bound_losses(model))
    assert bound != sum(beside.losses(model))
    assert len(beside) == 2 * len(plain) == sum(1 for _ in [*beside.losses(model)]) * 2
    # Each residue has its share in it.
    residues, batches = beside.num_targets / 0.15, len(plain)
    assert sum(beside._bound_weights) == pytest.approx(residues, abs=batches / 0.3)
    # A model that says nothing: each residue costs the same, at every rate.
    for parameter in (model.lm_head.bias, model.embed_tokens.weight):
        parameter[:] = 0
    assert sum(beside.bound_losses(model)) == pytest.approx(np.log(len(ESM1B)), rel=1e-5)


def test_an_objective_of_no_name_is_refused():
    with pytest.raises(ValueError, match=r"objective must be one of .*; got 'clm'"):
        Settings(num_iters=1, learning_rate=1.0, warmup=0, objective="clm")
