"""The architecture of ESM-2 against fair-esm's own, with random weights of the same names.

These need the extra "oracle".
"""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_oracle import (
    TOLERANCE,
    as_float64,
    distances,
    proteins,
    random_parameters,
    require_twice,
    run_ours,
    run_theirs,
    tokens_of,
)

from mlx_esm_kernels.data.masking import mask_tokens
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.training.loss import as_arrays, masked_loss

torch = pytest.importorskip("torch")
esm = pytest.importorskip("esm")

# layers, width, heads: heads of 16, 24, 32, 64 and 128, and an odd number of pairs.
SIZES = [(3, 64, 4), (2, 72, 3), (2, 64, 2), (1, 128, 2), (1, 128, 1), (2, 18, 3)]


def both(sizes, dtype=mx.float32):
    layers, width, heads = sizes
    theirs = esm.ESM2(num_layers=layers, embed_dim=width, attention_heads=heads)
    random_parameters(theirs, theirs.embed_tokens.weight.data)
    ours = ESM1(ESM1Config.esm2(layers, width, heads, contact_head=True))
    state = {k: mx.array(v.detach().numpy()) for k, v in theirs.named_parameters()}
    ours.load_weights(list(state.items()))
    ours.set_dtype(dtype)
    return theirs, ours


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_logits_every_layer_and_contacts_are_those_of_fair_esm(sizes):
    theirs, ours = both(sizes)
    tokens = tokens_of(theirs.alphabet, proteins())
    truth = run_theirs(theirs, tokens, sizes[0])
    assert max(distances(run_ours(ours, tokens), truth, (tokens != 1).numpy())) < TOLERANCE


def test_packed_proteins_are_those_of_fair_esm_one_by_one():
    theirs, ours = both((3, 64, 4))
    rows = [tokens_of(theirs.alphabet, [text]) for text in proteins()]
    segment_ids = np.concatenate([np.full(row.shape[1], i + 1) for i, row in enumerate(rows)])
    packed = mx.array(torch.cat(rows, dim=1).numpy().astype(np.int32))
    logits = as_float64(ours(packed, mx.array(segment_ids[None]))["logits"])
    start = 0
    for row in rows:
        end = start + row.shape[1]
        expected = run_theirs(theirs, row, 3)[0]
        assert np.abs(logits[:, start:end] - expected).max() < TOLERANCE
        start = end


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_within_twice_the_error_of_fair_esms_own(dtype):
    theirs, ours = both((3, 64, 4), getattr(mx, dtype))
    tokens = tokens_of(theirs.alphabet, proteins()[1:2])
    real = (tokens != 1).numpy()
    truth = run_theirs(theirs.double(), tokens, 3)
    again = both((3, 64, 4))[0]  # another one, as its tables of sines stay what they were first
    half = run_theirs(again.to(getattr(torch, dtype)), tokens, 3)
    require_twice(distances(run_ours(ours, tokens), truth, real), distances(half, truth, real))


def test_the_gradients_of_a_training_step_are_those_of_torch():
    theirs, ours = both((2, 64, 4))
    theirs.train()
    tokens = tokens_of(theirs.alphabet, proteins())
    segment_ids = (tokens.numpy() != 1).astype(np.int32)
    rng = np.random.default_rng(0)
    masked = mask_tokens(tokens.numpy().astype(np.int32), segment_ids, ours.alphabet, rng)
    logits = theirs(torch.tensor(masked.inputs).long())["logits"].reshape(-1, 33)
    count = int(masked.weights.sum())
    at = torch.tensor(masked.positions[:count]).long()
    loss = torch.nn.functional.cross_entropy(
        logits[at], torch.tensor(masked.targets[:count]).long()
    )
    loss.backward()
    batch = as_arrays(masked, segment_ids)

    def of(parameters):
        ours.update(parameters)
        return masked_loss(ours, *batch)

    found, gradients = mx.value_and_grad(of)(ours.trainable_parameters())
    assert float(found) == pytest.approx(float(loss.detach()), abs=1e-5)
    got = dict(tree_flatten(gradients))
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            expected = parameter.grad.numpy()
            atol = 1e-4 * max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(np.array(got[name]), expected, atol=atol, err_msg=name)
