"""A training step against float64 numpy, compiled and not; the learning rate of each step."""

import dataclasses
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masking import mask_tokens
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.training import step as step_module
from mlx_esm_kernels.training.loss import as_arrays, masked_loss
from mlx_esm_kernels.training.schedule import learning_rate
from mlx_esm_kernels.training.settings import Settings
from mlx_esm_kernels.training.step import TrainStep

TINY = ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=64)


def new_model():
    mx.random.seed(0)
    return ESM1(TINY)


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        tokens = rng.choice(ESM1B.amino_acid_ids, (2, 40)).astype(np.int32)
        segment_ids = np.ones_like(tokens)
        yield as_arrays(mask_tokens(tokens, segment_ids, ESM1B, rng), segment_ids)


def named(tree):
    return {name: np.array(value, np.float64) for name, value in tree_flatten(tree)}


def adamw_in_numpy(weights, gradient_of, rates, weight_decay, clip_norm):
    """Loshchilov and Hutter's algorithm 2 as it is printed, in float64; yields weights and norm."""
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for t, rate in enumerate(rates, start=1):
        gradients = gradient_of(weights, t)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, g in gradients.items():
            g = g * min(1, clip_norm / norm)
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.98 * v[name] + 0.02 * g**2
            m_hat, v_hat = m[name] / (1 - 0.8**t), v[name] / (1 - 0.98**t)
            decay = weight_decay if weights[name].ndim > 1 else 0
            step = m_hat / (np.sqrt(v_hat) + 1e-8) + decay * weights[name]
            weights = {**weights, name: weights[name] - rate * step}
        yield weights, norm


@pytest.mark.parametrize("clip_norm", [0.05, 1e9])
def test_steps_are_those_of_adamw_in_float64(clip_norm):
    taken = list(batches(4))
    rates = [1e-3, 2e-3, 5e-3, 1e-3]
    model, other = new_model(), new_model()
    step = TrainStep(model, weight_decay=0.3, clip_norm=clip_norm)

    def gradient_of(weights, t):
        # Where the step itself has come to, so that rounding does not add up.
        other.update(model.parameters())
        return named(value_and_grad(other, masked_loss)(other, *taken[t - 1])[1])

    start = named(model.parameters())
    expected = adamw_in_numpy(start, gradient_of, rates, 0.3, clip_norm)
    for batch, rate in zip(taken, rates, strict=True):
        weights, norm = next(expected)
        loss_before = masked_loss(model, *batch).item()
        loss, got_norm = step(batch, rate)
        assert loss == pytest.approx(loss_before, rel=1e-5)
        assert got_norm == pytest.approx(norm, rel=1e-4)
        for name, got in named(model.parameters()).items():
            # Adam divides by the root of the second moment, which is noise where a gradient
            # should be zero (the bias of k_proj): there the step is of any direction.
            if not name.endswith("k_proj.bias"):
                np.testing.assert_allclose(got, weights[name], atol=2e-2 * rate, err_msg=name)


@pytest.mark.slow  # On a CPU, MLX has the C++ compiler make some twenty kernels for it.
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize(("accumulated", "optimizer"), [(1, "adamw"), (2, "adamw"), (1, "muon")])
def test_a_compiled_step_is_the_same_step(dtype, accumulated, optimizer):
    models = [new_model(), new_model()]
    plain, compiled = (
        TrainStep(
            model,
            weight_decay=0.3,
            clip_norm=0.05,
            optimizer=optimizer,
            dtype=dtype,
            compiled=model is models[1],
        )
        for model in models
    )
    taken = list(batches(4))
    for batch, rate in zip(taken, [1e-3, 2e-3, 5e-3, 1e-3], strict=True):
        others = taken[: accumulated - 1]
        shares = shares_of(batch, *others)
        got = compiled(batch, rate, *others, shares=shares)
        np.testing.assert_allclose(plain(batch, rate, *others, shares=shares), got, rtol=1e-5)
    expected, got = (named(model.parameters()) for model in models)
    for name in expected:
        if not name.endswith("k_proj.bias"):  # see above
            np.testing.assert_allclose(got[name], expected[name], atol=1e-5, err_msg=name)


def shares_of(*taken):
    """The part of all targets that each batch has."""
    counts = np.array([float(batch[-1].sum()) for batch in taken])
    return (counts / counts.sum()).tolist()


def as_one(taken):
    """Batches as one of all their rows; positions count over the flattened batch."""
    inputs, ids, positions, targets, weights = zip(*taken, strict=True)
    offsets = np.cumsum([0, *(x.size for x in inputs[:-1])])
    moved = [x + int(offset) for x, offset in zip(positions, offsets, strict=True)]
    return tuple(map(mx.concatenate, (inputs, ids, moved, targets, weights)))


def fewer_targets(batch, count):
    *others, weights = batch
    return (*others, mx.where(mx.arange(weights.size) < count, weights, 0.0))


def test_accumulated_batches_are_one_large_batch():
    """Whatever share of the targets each of them has."""
    first, second, third = batches(3)
    taken = [first, fewer_targets(second, 2), fewer_targets(third, 0)]
    models = [new_model(), new_model()]
    steps = [TrainStep(model, weight_decay=0.3, clip_norm=0.05) for model in models]
    shares = shares_of(*taken)
    for _ in range(2):
        large = steps[0](as_one(taken), 1e-3)
        parts = steps[1](taken[0], 1e-3, *taken[1:], shares=shares)
        np.testing.assert_allclose(parts, large, rtol=1e-5)
    expected, got = (named(model.parameters()) for model in models)
    for name in expected:
        if not name.endswith("k_proj.bias"):  # see above
            np.testing.assert_allclose(got[name], expected[name], atol=1e-5, err_msg=name)


def test_a_step_that_follows_an_accumulated_one_is_of_its_own_batch():
    taken = list(batches(3))
    alone, after = new_model(), new_model()
    one = TrainStep(alone, weight_decay=0.0, clip_norm=1.0)
    other = TrainStep(after, weight_decay=0.0, clip_norm=1.0)
    # At a rate of 0 both leave the weights as they are.
    one(taken[0], 0.0)
    other(taken[1], 0.0, taken[2], shares=(0.5, 0.5))
    assert one(taken[0], 1e-3)[0] == other(taken[0], 1e-3)[0]


@pytest.mark.parametrize(("dtype", "near"), [(mx.bfloat16, 0.02), (mx.float16, 0.003)])
def test_low_precision_is_of_activations_alone(dtype, near):
    """Losses are near those of float32 step by step; weights and moments are float32."""
    models = [new_model(), new_model()]
    exact = TrainStep(models[0], weight_decay=0.0, clip_norm=1.0)
    low = TrainStep(models[1], weight_decay=0.0, clip_norm=1.0, dtype=dtype)
    seen = []
    encode = models[1].encode
    models[1].encode = lambda *x: seen.append(encode(*x)) or seen[-1]
    for batch in batches(3):
        expected, got = exact(batch, 1e-3), low(batch, 1e-3)
        assert got[0] == pytest.approx(expected[0], rel=near)
        assert got[1] == pytest.approx(expected[1], rel=10 * near)
    assert {x.dtype for x in seen} == {dtype}
    kept = [*models[1].parameters().values(), *low.arrays().values()]
    assert {x.dtype for _, x in tree_flatten(kept)} == {mx.float32}


def test_what_overflows_float16_is_computed_again_at_a_smaller_scale():
    (batch,) = batches(1)
    models = [new_model(), new_model()]
    usual, large = (
        TrainStep(model, weight_decay=0.0, clip_norm=1.0, dtype=mx.float16) for model in models
    )
    large.scale = 2.0**60
    assert large(batch, 1e-3)[0] == pytest.approx(usual(batch, 1e-3)[0], rel=1e-6)
    assert usual.scale == step_module.FIRST_SCALE
    assert step_module.FIRST_SCALE <= large.scale < 2.0**40
    assert all(np.isfinite(x).all() for x in named(models[1].parameters()).values())
    scale = usual.scale
    usual.steps_at_scale = step_module.STEPS_PER_DOUBLING
    usual(batch, 1e-3)
    assert usual.scale == 2 * scale


def test_a_loss_that_is_no_number_is_no_matter_of_scale():
    model = new_model()
    model.lm_head.bias = mx.full(model.lm_head.bias.shape, mx.inf)
    step = TrainStep(model, weight_decay=0.0, clip_norm=1.0, dtype=mx.float16)
    loss, norm = step(next(batches(1)), 1e-3)
    assert not np.isfinite([loss, norm]).all()
    assert step.scale == step_module.SMALLEST_SCALE


def test_layers_that_are_computed_again_give_the_same_bits_in_less_memory():
    config = dataclasses.replace(TINY, num_layers=12)
    peaks, results = [], []
    for checkpointing in (False, True):
        mx.random.seed(0)
        model = ESM1(config)
        model.checkpointing = checkpointing
        step = TrainStep(model, weight_decay=0.0, clip_norm=1.0)
        (batch,) = batches(1)
        mx.eval(model.parameters(), batch)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        loss, norm = step(batch, 1e-3)
        peaks.append(mx.get_peak_memory() - before)
        results.append((loss, norm, named(model.parameters())))
    (loss, norm, plain), (again, norm_again, checkpointed) = results
    assert (loss, norm) == (again, norm_again)
    assert all(np.array_equal(plain[name], checkpointed[name]) for name in plain)
    assert peaks[1] < 0.8 * peaks[0], peaks


def test_the_padding_row_of_the_position_table_stays_zero():
    model = new_model()
    step = TrainStep(model, weight_decay=0.1, clip_norm=1.0)
    for batch in batches(2):
        step(batch, 1e-2)
    assert not np.array(model.embed_positions.weight[TINY.padding_idx]).any()


def test_a_loss_that_is_no_number_is_reported_as_such():
    model = new_model()
    model.lm_head.bias = mx.full(model.lm_head.bias.shape, mx.inf)
    loss, norm = TrainStep(model, weight_decay=0.0, clip_norm=1.0)(next(batches(1)), 1e-3)
    assert not np.isfinite([loss, norm]).all()


def test_the_rate_rises_in_a_line_then_falls_to_zero():
    rates = [learning_rate(2.0, step, warmup=10, done=step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(1.0 * 0.96)
    assert max(rates) == pytest.approx(2.0 * 0.91)
    assert rates.index(max(rates)) == 9
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert rates[-1] == 0
    assert learning_rate(2.0, 0, warmup=0, done=0.0) == 2.0


def test_the_rate_may_fall_as_half_a_wave_or_not_at_all():
    cosine = [learning_rate(2.0, step, 0, step / 100, "cosine") for step in range(101)]
    assert cosine[0] == 2.0
    assert cosine[50] == pytest.approx(1.0)
    assert cosine[25] == pytest.approx(2.0 * (2 + 2**0.5) / 4)
    assert cosine[-1] == 0
    assert [learning_rate(2.0, step, 4, step / 100, "constant") for step in (0, 1, 3, 99)] == [
        0.5, 1.0, 2.0, 2.0
    ]  # fmt: skip


def test_the_rate_may_fall_as_the_inverse_square_root_of_the_step():
    rates = [learning_rate(2.0, step, 4, step / 100, "inverse-sqrt") for step in (0, 3, 15, 99)]
    assert rates == pytest.approx([0.5, 2.0, 1.0, 0.4])
    assert learning_rate(2.0, 3, 0, 0.0, "inverse-sqrt") == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"betas": (0.9, 1.0)}, {"schedule": "square"}, {"accumulation": 0}, {"num_iters": None}],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^\[Settings\]"):
        Settings(**{"num_iters": 10, "learning_rate": 1e-3, "warmup": 0} | wrong)


def muon_in_numpy(weights, gradients, momenta, rate, decay):
    """Jordan's algorithm in float64, with the rates of Liu et al.; the iteration's own numbers."""
    new, new_momenta = {}, {}
    for name, w in weights.items():
        g = gradients[name]
        new_momenta[name] = m = 0.95 * momenta[name] + 0.05 * g
        x = 0.05 * g + 0.95 * m
        x = x / np.sqrt((x**2).sum())
        wide = x.shape[0] <= x.shape[1]
        x = x if wide else x.T
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = x if wide else x.T
        new[name] = w - rate * (0.2 * max(x.shape) ** 0.5 * x + decay * w)
    return new, new_momenta


def test_matrices_of_the_layers_are_stepped_by_muon_and_the_rest_by_adamw():
    (batch,) = batches(1)
    models = [new_model(), new_model()]
    steps = [
        TrainStep(model, weight_decay=0.3, clip_norm=1e9, optimizer=optimizer)
        for model, optimizer in zip(models, ("muon", "adamw"), strict=True)
    ]
    before = named(models[0].parameters())
    rate, names = 1e-2, [name for name in before if name.startswith("layers.")]
    matrices = [name for name in names if before[name].ndim == 2]
    assert matrices
    gradients = named(mx.grad(lambda p: loss_of(models[0], p, batch))(models[0].parameters()))
    results = [step(batch, rate) for step in steps]
    assert results[0] == pytest.approx(results[1], rel=1e-5)  # loss and norm of all gradients
    by_muon, by_adamw = (named(model.parameters()) for model in models)
    zeros = {name: np.zeros_like(before[name]) for name in matrices}
    expected, momenta = muon_in_numpy(
        {name: before[name] for name in matrices}, gradients, zeros, rate, 0.3
    )
    arrays = steps[0].arrays()
    for name in before:
        if name in matrices:
            np.testing.assert_allclose(by_muon[name], expected[name], atol=2e-2 * rate)
            moment = np.array(arrays[f"moment_1.{name}"])
            np.testing.assert_allclose(moment, momenta[name], rtol=1e-4, atol=1e-7)
            assert f"moment_2.{name}" not in arrays
        else:
            np.testing.assert_allclose(by_muon[name], by_adamw[name], atol=1e-5 * rate)


def test_a_step_of_muon_is_about_as_large_as_one_of_adamw():
    """So that one learning rate serves both."""
    (batch,) = batches(1)
    sizes = []
    for optimizer in ("muon", "adamw"):
        model = new_model()
        before = named(model.parameters())
        TrainStep(model, weight_decay=0.0, clip_norm=1.0, optimizer=optimizer)(batch, 1e-3)
        after = named(model.parameters())
        name = "layers.0.fc1.weight"
        sizes.append(np.sqrt(((after[name] - before[name]) ** 2).mean()) / 1e-3)
    assert 0.1 < sizes[0] < 0.3, sizes  # AdamW's are 1 in the first step, and smaller later


def loss_of(model, parameters, batch):
    before = model.parameters()
    model.update(parameters)
    loss = masked_loss(model, *batch)
    model.update(before)
    return loss
