"""The hash by which weights are known again."""

import dataclasses

import mlx.core as mx
import pytest

from mlx_esm_kernels.models import fingerprint as module
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.models.fingerprint import fingerprint, fingerprint_of_base
from mlx_esm_kernels.models.low_rank import LowRank, add_low_rank

TINY = ESM1Config(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=16)


def new_model(**changes):
    mx.random.seed(0)
    return ESM1(dataclasses.replace(TINY, **changes))


def test_the_same_weights_have_the_same_and_others_another():
    assert fingerprint(new_model()) == fingerprint(new_model())
    other = new_model()
    other.layers[0].fc1.weight = other.layers[0].fc1.weight + 1
    assert len({fingerprint(m) for m in (new_model(), other, new_model(layer_norm_eps=1e-6))}) == 3


def test_weights_are_the_same_whatever_they_are_said_to_be_trained_for():
    """Most formats do not say it, and adapters and heads belong to the weights all the same."""
    for hashed in (fingerprint, fingerprint_of_base):
        assert hashed(new_model(objective="mixed")) == hashed(new_model())


def test_an_adapter_changes_it_and_not_that_of_the_base():
    plain, adapted = new_model(), new_model()
    add_low_rank(adapted, LowRank(2))
    assert fingerprint(adapted) != fingerprint(plain)
    assert fingerprint_of_base(adapted) == fingerprint_of_base(plain)


def test_the_base_is_the_same_with_a_contact_regression_and_without():
    with_it, without = new_model(contact_head=True), new_model()
    for name in ("embed_tokens", "embed_positions", "emb_layer_norm_before", "layers",
                 "emb_layer_norm_after", "lm_head"):  # fmt: skip
        with_it[name] = without[name]
    assert fingerprint_of_base(with_it) == fingerprint_of_base(without)
    assert fingerprint(with_it) != fingerprint(without)


def test_a_field_that_comes_later_leaves_it_as_it_is(monkeypatch):
    """Adapters and heads of earlier versions still belong to their weights."""

    @dataclasses.dataclass(frozen=True)
    class Later(ESM1Config):
        rotary: bool = False

    model = new_model()
    before = fingerprint(model)
    later = Later(**TINY.to_dict())
    parameters = {"a": mx.array([1.0])}
    assert module._fingerprint(later, parameters) == module._fingerprint(TINY, parameters)
    assert fingerprint(model) == before


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_it_is_of_values_not_of_dtypes(dtype):
    model = new_model()
    model.set_dtype(mx.bfloat16)
    expected = fingerprint(model)
    model.set_dtype(dtype)
    assert fingerprint(model) == expected
