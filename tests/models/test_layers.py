"""A layer may be replaced by any module that is called like it; those of ours run in fused ops."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.optimizers import SGD
from mlx.utils import tree_flatten, tree_unflatten
from random_models import parameters, randomised
from test_model import SMALL, far, packed, protein

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.models import layers as model_layers
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.models.reference import ESM1Reference

CONFIG = ESM1Config(**SMALL, contact_head=True)
Q_PROJ = "layers.0.self_attn.q_proj"
LINEARS = (
    Q_PROJ,
    "layers.1.self_attn.v_proj",
    "layers.0.self_attn.out_proj",
    "layers.1.fc1",
    "layers.0.fc2",
    "lm_head.dense",
)
EMBEDDINGS = ("embed_tokens", "embed_positions")
NORMS = (
    "layers.0.self_attn_layer_norm",
    "layers.1.final_layer_norm",
    "emb_layer_norm_before",
    "emb_layer_norm_after",
    "lm_head.layer_norm",
)


class LowRank(nn.Module):
    """A layer with a low-rank product beside it: of x A B, or of the rows of A B."""

    def __init__(self, base, rank=3, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        rows, columns = base.weight.shape
        inputs, outputs = (rows, columns) if isinstance(base, nn.Embedding) else (columns, rows)
        self.base = base
        self.a = mx.array(rng.normal(0, 0.3, (inputs, rank)), mx.float32)
        self.b = mx.array(rng.normal(0, 0.3, (rank, outputs)), mx.float32)

    def __call__(self, x):
        product = self.a[x] if isinstance(self.base, nn.Embedding) else x @ self.a
        return self.base(x) + product @ self.b

    def as_linear(self, x):
        return self.base.as_linear(x) + (x @ self.b.T) @ self.a.T


class PlainNorm(nn.Module):
    """A layer norm by hand, with names of its own."""

    def __init__(self, base):
        super().__init__()
        self.scale, self.shift, self.epsilon = base.weight, base.bias, base.eps

    def __call__(self, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x * mx.rsqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        return x * self.scale + self.shift


def replace(model, path, make):
    """Put make(layer) in the place of a layer, in the way that MLX has for it."""
    layer = dict(model.named_modules())[path]
    model.update_modules(tree_unflatten([(path, make(layer))]))


def batch(with_segments):
    """Several proteins in a row, or each in its own; tokens, segment ids and a cotangent."""
    rng = np.random.default_rng(1)
    rows = [[protein(rng, n) for n in lengths] for lengths in ((9, 14, 3), (26,), (1, 1, 1))]
    tokens, ids = packed(rows if with_segments else [row[:1] for row in rows], 38)
    cotangent = rng.normal(size=(*tokens.shape, len(ESM1B)))
    real = (tokens != ESM1B.padding_idx)[..., None]
    return tokens, ids if with_segments else None, mx.array(cotangent, mx.float32) * real


def logits_and_gradients(model, given):
    tokens, segment_ids, cotangent = given

    def loss(model):
        logits = model(tokens, segment_ids)["logits"]
        return (logits * cotangent).sum(), logits * (cotangent != 0)

    (_, logits), gradients = nn.value_and_grad(model, loss)(model)
    return logits, dict(tree_flatten(gradients))


def expect_the_same(actual, expected):
    """Tolerances as in test_model."""
    assert far(actual[0], expected[0]) < 5e-6
    assert actual[1].keys() == expected[1].keys()
    largest = max(np.abs(np.array(g)).max() for g in expected[1].values())
    for name, gradient in expected[1].items():
        if name.endswith("k_proj.bias"):  # without influence: what remains is rounding
            assert np.abs(np.array(actual[1][name])).max() < 1e-5 * largest
        else:
            assert far(actual[1][name], gradient) < 2e-5, name


both_ways = pytest.mark.parametrize("with_segments", [True, False], ids=["packed", "alone"])


@both_ways
@pytest.mark.parametrize("path", [*LINEARS, *EMBEDDINGS])
def test_a_low_rank_product_beside_a_layer_is_as_if_it_were_in_the_weight(path, with_segments):
    model, reference = randomised(ESM1(CONFIG)), randomised(ESM1Reference(CONFIG))
    replace(model, path, LowRank)
    layer, merged = (dict(m.named_modules())[path] for m in (model, reference))
    swap = (lambda x: x) if path in EMBEDDINGS else mx.transpose
    merged.weight = merged.weight + swap(layer.a @ layer.b)
    given = batch(with_segments)
    logits, gradients = logits_and_gradients(reference, given)
    names = {name: name.replace(path, f"{path}.base") for name in gradients}
    expected = {names[name]: gradient for name, gradient in gradients.items()}
    of_product = swap(gradients[f"{path}.weight"])
    expected[f"{path}.a"] = of_product @ layer.b.T
    expected[f"{path}.b"] = layer.a.T @ of_product
    expect_the_same(logits_and_gradients(model, given), (logits, expected))


@both_ways
@pytest.mark.parametrize("path", [Q_PROJ, "layers.1.fc1", "layers.0.fc2"])
def test_a_replaced_layer_is_that_of_the_reference_with_the_same_layer(path, with_segments):
    model, reference = randomised(ESM1(CONFIG)), randomised(ESM1Reference(CONFIG))
    replace(model, path, LowRank)
    replace(reference, path, LowRank)
    expect_the_same(*(logits_and_gradients(m, batch(with_segments)) for m in (model, reference)))


@both_ways
@pytest.mark.parametrize("path", NORMS)
def test_a_layer_norm_may_be_of_another_hand(path, with_segments):
    model, reference = randomised(ESM1(CONFIG)), randomised(ESM1Reference(CONFIG))
    replace(model, path, PlainNorm)
    given = batch(with_segments)
    logits, gradients = logits_and_gradients(reference, given)
    for ours, theirs in (("scale", "weight"), ("shift", "bias")):
        gradients[f"{path}.{ours}"] = gradients.pop(f"{path}.{theirs}")
    expect_the_same(logits_and_gradients(model, given), (logits, gradients))


def test_a_model_in_which_everything_is_replaced_begins_where_it_was():
    """Every layer at once, with B = 0, as low-rank adaptation begins."""
    model = randomised(ESM1(CONFIG))
    expected = logits_and_gradients(model, batch(True))[0]
    for path in (*LINEARS, *EMBEDDINGS):
        replace(model, path, LowRank)
        layer = dict(model.named_modules())[path]
        layer.b = mx.zeros_like(layer.b)
    for path in NORMS:
        replace(model, path, PlainNorm)
    assert far(logits_and_gradients(model, batch(True))[0], expected) < 5e-6


def test_mlx_own_layers_may_take_the_places_of_ours():
    model, expected = randomised(ESM1(CONFIG)), randomised(ESM1Reference(CONFIG))
    stock = {
        path: module
        for path, module in expected.named_modules()
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.Embedding)
    }
    model.update_modules(tree_unflatten(list(stock.items())))
    expect_the_same(*(logits_and_gradients(m, batch(True)) for m in (model, expected)))


@pytest.mark.parametrize("path", [Q_PROJ, "contact_head.regression"])
def test_contacts_see_a_replaced_layer(path):
    model, reference = randomised(ESM1(CONFIG)), randomised(ESM1Reference(CONFIG))
    replace(model, path, LowRank)
    layer, merged = (dict(m.named_modules())[path] for m in (model, reference))
    merged.weight = merged.weight + (layer.a @ layer.b).T
    tokens = batch(False)[0]
    actual, expected = (m(tokens, return_contacts=True)["contacts"] for m in (model, reference))
    np.testing.assert_allclose(np.array(actual), np.array(expected), atol=2e-6)


def test_only_what_is_not_frozen_gets_a_gradient():
    model = randomised(ESM1(CONFIG))
    model.freeze()
    replace(model, Q_PROJ, LowRank)
    _, gradients = logits_and_gradients(model, batch(True))
    assert gradients.keys() == {f"{Q_PROJ}.a", f"{Q_PROJ}.b"}


def test_a_step_with_a_replaced_layer_can_be_compiled():
    model = randomised(ESM1(CONFIG))
    model.freeze()
    replace(model, Q_PROJ, LowRank)
    tokens, segment_ids, cotangent = batch(True)
    mx.eval(cotangent)  # it was made of the tokens, which compiling hides
    optimizer = SGD(0.01)

    def step(tokens, segment_ids):
        _, gradients = logits_and_gradients(model, (tokens, segment_ids, cotangent))
        optimizer.update(model, tree_unflatten(list(gradients.items())))

    before = parameters(model)
    step(tokens, segment_ids)
    expected = parameters(model)
    model.load_weights(list(before.items()))
    state = [model.state, optimizer.state]
    mx.compile(step, inputs=state, outputs=state)(tokens, segment_ids)
    actual = parameters(model)
    for name in (f"{Q_PROJ}.a", f"{Q_PROJ}.b"):
        assert not mx.array_equal(expected[name], before[name])
        assert far(actual[name], expected[name]) < 1e-6


def test_a_model_may_be_quantised():
    """By MLX's own function, all but the contact regression, whose width it cannot cut."""
    config = ESM1Config(2, 64, 128, 2, contact_head=True)
    model, reference = randomised(ESM1(config), scale=0.1), randomised(ESM1Reference(config))
    nn.quantize(
        model,
        bits=8,
        class_predicate=lambda path, layer: (
            path != "contact_head.regression" and hasattr(layer, "to_quantized")
        ),
    )
    quantised = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.QuantizedLinear | nn.QuantizedEmbedding)
    }
    assert len(quantised) == 2 * 6 + 1 + 2
    weights = {
        **parameters(model),
        **{
            f"{path}.weight": mx.dequantize(
                layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits
            )
            for path, layer in quantised.items()
        },
    }
    reference.load_weights(
        [(name, p) for name, p in weights.items() if not name.endswith((".scales", ".biases"))]
    )
    tokens, _, cotangent = batch(False)
    actual, expected = (m(tokens)["logits"] * (cotangent != 0) for m in (model, reference))
    assert far(actual, expected) < 5e-6


@pytest.fixture
def fused_calls(monkeypatch):
    """The fused ops that a model calls, in order, with the names of what they were given."""
    calls = []

    def watched(name, op):
        def call(*args, **given):
            extras = [key for key, value in given.items() if value is not None and key != "eps"]
            calls.append(" ".join([name, *sorted(extras)]))
            return op(*args, **given)

        return call

    for name in ("linear", "linears", "layer_norm", "add_layer_norm"):
        monkeypatch.setattr(model_layers, name, watched(name, getattr(model_layers, name)))
    return calls


def test_layers_of_ours_run_in_fused_ops(fused_calls):
    model = randomised(ESM1(CONFIG))
    tokens, segment_ids, _ = batch(True)
    model(tokens, segment_ids)
    a_layer = [
        "add_layer_norm",
        "linears",
        "linear",
        "add_layer_norm",
        "linear activation",
        "linear residual",
    ]
    head = ["linear activation", "layer_norm", "linear"]
    assert fused_calls == ["layer_norm", *a_layer, *a_layer, "layer_norm", *head]

    fused_calls.clear()
    replace(model, Q_PROJ, LowRank)
    model(tokens, segment_ids)
    a_layer_of_three = ["linear" if call == "linears" else call for call in a_layer]
    a_layer_of_three[1:1] = ["linear", "linear"]
    assert fused_calls == ["layer_norm", *a_layer_of_three, *a_layer, "layer_norm", *head]
