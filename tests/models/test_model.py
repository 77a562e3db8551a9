"""The models are fair-esm's, are the plain MLX reference, and see each protein by itself."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from random_models import parameters, randomised

from mlx_esm_kernels.data.alphabet import ESM1_ALPHABET, ESM1B
from mlx_esm_kernels.models.esm1 import ESM1, PRESETS, ESM1Config
from mlx_esm_kernels.models.reference import ESM1Reference
from mlx_esm_kernels.weights.first_mlx_esm import FIRST_MLX_ESM, first_mlx_esm_config

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"num_layers": 2, "embed_dim": 24, "ffn_dim": 40, "num_heads": 3, "max_positions": 40}
ARCHITECTURES = {
    "ESM-1b": ESM1Config(**SMALL),
    "ESM-1v": ESM1Config(**SMALL, emb_layer_norm_before=False),
    "no token dropout": ESM1Config(**SMALL, token_dropout=False),
    "ESM-1": ESM1Config.esm1(**SMALL),
    "the first mlx-esm": first_mlx_esm_config(**SMALL),
}
every_architecture = pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)
PAD, MASK = ESM1B.padding_idx, ESM1B.mask_idx


def new_model(config):
    """A model; the first mlx-esm's alphabet is not among those that a config finds by itself."""
    first = config.disagreement(FIRST_MLX_ESM) is None
    return ESM1(config, FIRST_MLX_ESM if first else None)


def protein(rng, residues, mask_rate=0.2, alphabet=ESM1B):
    tokens = rng.choice(alphabet.amino_acid_ids, residues)
    tokens[rng.random(residues) < mask_rate] = alphabet.mask_idx
    return alphabet.with_specials(tokens)


def packed(rows, length, alphabet=ESM1B):
    """Lists of proteins -> tokens and segment ids (B, L)."""
    tokens = np.full((len(rows), length), alphabet.padding_idx)
    segment_ids = np.zeros((len(rows), length), dtype=np.int32)
    for row, proteins in enumerate(rows):
        start = 0
        for segment, tokens_of_one in enumerate(proteins, start=1):
            end = start + len(tokens_of_one)
            tokens[row, start:end] = tokens_of_one
            segment_ids[row, start:end] = segment
            start = end
    return mx.array(tokens.astype(np.int32)), mx.array(segment_ids)


def far(actual, expected):
    """The largest difference, relative to the largest number that is expected."""
    actual, expected = np.array(actual), np.array(expected)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


@pytest.mark.parametrize("model_class", [ESM1, ESM1Reference])
@pytest.mark.parametrize("name", ["1", "1b", "1v"])
def test_logits_every_layer_and_contacts_are_those_of_fair_esm(model_class, name):
    golden = np.load(GOLDEN / f"fair_esm_{name}.npz")
    sizes = {"num_layers": 2, "embed_dim": 8, "ffn_dim": 16, "num_heads": 2, "max_positions": 24}
    if name == "1":
        config = ESM1Config.esm1(**sizes, contact_head=True)
    else:
        config = ESM1Config(**sizes, emb_layer_norm_before=name == "1b", contact_head=True)
    weights = {key[6:]: mx.array(golden[key]) for key in golden if key.startswith("model.")}
    model = model_class(config)
    model.load_weights(list(weights.items()))  # strict: the names are fair-esm's
    out = model(mx.array(golden["tokens"]), repr_layers=range(3), return_contacts=True)
    real = golden["tokens"] != PAD
    assert far(np.array(out["logits"])[real], golden["logits"][real]) < 5e-6
    for layer in range(3):
        actual = np.array(out["representations"][layer])[real]
        assert far(actual, golden["representations"][layer][real]) < 5e-6
    assert far(out["contacts"], golden["contacts"]) < 5e-6


@every_architecture
@pytest.mark.parametrize("with_segments", [True, False])
def test_logits_and_all_gradients_are_those_of_the_reference(config, with_segments):
    model, reference = randomised(new_model(config)), randomised(ESM1Reference(config))
    alphabet, rng = model.alphabet, np.random.default_rng(1)
    rows = [
        [protein(rng, n, alphabet=alphabet) for n in lengths]
        for lengths in ((9, 14, 3), (26,), (1, 1, 1))
    ]
    rows = rows if with_segments else [row[:1] for row in rows]
    tokens, segment_ids = packed(rows, 38, alphabet)
    if not with_segments:
        segment_ids = None
    real = (tokens != alphabet.padding_idx)[..., None]
    cotangent = mx.array(rng.normal(size=(3, 38, len(alphabet))), mx.float32) * real

    def loss(model):
        return (model(tokens, segment_ids)["logits"] * cotangent).sum()

    actual = model(tokens, segment_ids)["logits"] * real
    assert far(actual, reference(tokens, segment_ids)["logits"] * real) < 5e-6
    gradients = [dict(tree_flatten(nn.value_and_grad(m, loss)(m)[1])) for m in (model, reference)]
    assert gradients[0].keys() == gradients[1].keys() == parameters(model).keys()
    largest = max(np.abs(np.array(g)).max() for g in gradients[1].values())
    for name, expected in gradients[1].items():
        # The bias of k has no influence on the softmax: what remains of its gradient is rounding.
        if name.endswith("k_proj.bias") and not config.bias_kv:
            assert np.abs(np.array(gradients[0][name])).max() < 1e-5 * largest
        else:
            assert far(gradients[0][name], expected) < 2e-5, name


@every_architecture
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    padding=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_a_protein_has_the_same_logits_alone_padded_and_packed(config, lengths, padding, seed):
    model = randomised(new_model(config))
    alphabet = model.alphabet
    rng = np.random.default_rng(seed)
    proteins = [protein(rng, n, alphabet=alphabet) for n in lengths]
    in_one_row, segment_ids = packed([proteins], sum(map(len, proteins)) + padding, alphabet)
    in_rows, _ = packed([[p] for p in proteins], max(map(len, proteins)) + padding, alphabet)
    from_one_row = np.array(model(in_one_row, segment_ids)["logits"])[0]
    from_rows = np.array(model(in_rows)["logits"])
    start = 0
    for row, tokens in enumerate(proteins):
        alone = model(mx.array(tokens[None]))["logits"][0]
        end = start + len(tokens)
        assert far(from_one_row[start:end], alone) < 1e-5
        assert far(from_rows[row, : len(tokens)], alone) < 1e-5
        start = end


def test_a_residue_of_another_protein_in_the_row_has_no_influence_at_all():
    model = randomised(ESM1(ESM1Config(**SMALL)))
    rng = np.random.default_rng(0)
    first, second = protein(rng, 8), protein(rng, 11)
    before = model(*packed([[first, second]], 25))["logits"][0, : len(first)]
    second[3:9] = MASK
    after = model(*packed([[first, second]], 25))["logits"][0, : len(first)]
    assert mx.array_equal(before, after)


def test_padding_tokens_count_as_padding_whatever_their_segment_id():
    model = randomised(ESM1(ESM1Config(**SMALL)))
    tokens, segment_ids = packed([[protein(np.random.default_rng(0), 9)]], 16)
    careless = mx.ones_like(segment_ids)
    expected = model(tokens, segment_ids)["logits"][0, :11]
    assert mx.array_equal(model(tokens, careless)["logits"][0, :11], expected)


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint8])
def test_segment_ids_are_made_ready_once_and_not_in_every_layer(dtype, tmp_path):
    model = randomised(ESM1(ESM1Config(**SMALL)))
    mx.eval(model.parameters())
    tokens, segment_ids = packed([[protein(np.random.default_rng(0), 9)]], 16)
    graph = tmp_path / "graph.dot"
    mx.export_to_dot(str(graph), model(tokens, segment_ids.astype(dtype))["logits"])
    text = graph.read_text()
    assert text.count('label ="MaskedAttention"') == 2
    assert "AsType" not in text


def test_encode_and_head_are_the_two_halves_of_a_call():
    model = randomised(ESM1(ESM1Config(**SMALL)))
    tokens, _ = packed([[protein(np.random.default_rng(0), 9)]], 11)
    out = model(tokens, repr_layers=[2])
    x = model.encode(tokens)
    assert mx.array_equal(x, out["representations"][2])
    assert mx.array_equal(model.head(x), out["logits"])
    some_rows = model.head(x[0, mx.array([3, 7])])
    assert far(some_rows, out["logits"][0, mx.array([3, 7])]) < 1e-6


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@every_architecture
def test_a_half_precision_model_stays_in_its_dtype_and_near_float32(config, dtype):
    model = randomised(new_model(config), scale=0.1)
    alphabet = model.alphabet
    tokens, _ = packed([[protein(np.random.default_rng(0), 20, alphabet=alphabet)]], 22, alphabet)
    expected = model(tokens)["logits"]
    model.set_dtype(dtype)
    actual = model(tokens)["logits"]
    assert actual.dtype == dtype
    real = np.array(tokens[0] != alphabet.padding_idx)
    actual, expected = np.array(actual[0].astype(mx.float32)), np.array(expected[0])
    assert far(actual[real], expected[real]) < 20 * mx.finfo(dtype).eps


def test_a_new_model_starts_near_a_uniform_guess_with_zero_rows_for_padding():
    mx.random.seed(0)
    model = ESM1(PRESETS["small"])
    assert not model.embed_tokens.weight[PAD].any()
    assert not model.embed_positions.weight[PAD].any()
    tokens, _ = packed([[protein(np.random.default_rng(0), 50)]], 52)
    log_p = nn.log_softmax(model(tokens)["logits"], axis=-1)
    assert abs(-log_p.mean().item() - np.log(33)) < 0.3


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("small", 272_289),
        # fair-esm's own count, less its contact head.
        pytest.param("esm1b_t33_650M_UR50S", 652_359_094 - 661, marks=pytest.mark.slow),
        pytest.param("esm1v_t33_650M_UR90S", 652_356_534 - 661, marks=pytest.mark.slow),
        ("esm1_t6_43M", 42_590_316 - 73),
        ("esm1_t12_85M", 85_126_836 - 145),
        pytest.param("esm1_t34_670M", 669_210_316 - 681, marks=pytest.mark.slow),
    ],
)
def test_presets_have_the_known_number_of_parameters(preset, count):
    assert sum(p.size for p in parameters(ESM1(PRESETS[preset])).values()) == count


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_heads": 5}, "multiple of num_heads; got embed_dim 24 and num_heads 5"),
        ({"num_layers": 0}, "num_layers must be at least 1; got 0"),
        ({"ffn_dim": 2.5}, "ffn_dim must be an integer at least 1; got 2.5"),
        ({"num_layers": True}, "num_layers must be an integer"),
        ({"mask_idx": 33}, "mask_idx must be from 0 to 32; got 33"),
        ({"token_dropout": "yes"}, "token_dropout must be True or False; got 'yes'"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be a float between 0 and 1; got 0.0"),
        ({"bias_kv": 1}, "bias_kv must be True or False; got 1"),
        (
            {"sinusoidal_positions": True, "embed_dim": 9},
            "embed_dim must be even and at least 4 for sinusoidal positions; got 9",
        ),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ESM1Config(**{**SMALL, **change})


def test_a_config_survives_its_dict_and_refuses_one_that_is_not_its_own():
    config = ESM1Config(**SMALL, emb_layer_norm_before=False)
    assert ESM1Config.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown fields: depth"):
        ESM1Config.from_dict({**SMALL, "depth": 3})
    with pytest.raises(ValueError, match="missing fields: embed_dim, ffn_dim"):
        ESM1Config.from_dict({"num_layers": 1, "num_heads": 1})


def test_a_model_has_the_alphabet_that_fits_its_config_or_says_that_none_does():
    assert [new_model(config).alphabet for config in ARCHITECTURES.values()] == [
        *[ESM1B] * 3,
        ESM1_ALPHABET,
        FIRST_MLX_ESM,
    ]
    with pytest.raises(ValueError, match="append_eos is False in the config and True in the alph"):
        ESM1(ESM1Config(**SMALL, append_eos=False), ESM1B)
    with pytest.raises(ValueError, match="vocab_size is 34, the alphabet has 33 tokens"):
        ESM1(ESM1Config(**SMALL, vocab_size=34), ESM1B)
    with pytest.raises(ValueError, match="no known alphabet has these token ids"):
        ESM1(ESM1Config(**SMALL, vocab_size=34))


def test_sinusoidal_positions_go_on_where_learned_ones_end():
    config = ESM1Config.esm1(**SMALL)
    model, reference = randomised(new_model(config)), randomised(ESM1Reference(config))
    rng = np.random.default_rng(0)
    tokens, _ = packed([[protein(rng, 90, alphabet=ESM1_ALPHABET)]], 91, ESM1_ALPHABET)
    assert far(model(tokens)["logits"], reference(tokens)["logits"]) < 2e-5


def test_bad_arguments_are_refused_with_a_sentence():
    model = ESM1(ESM1Config(**SMALL))
    tokens, segment_ids = packed([[protein(np.random.default_rng(0), 9)]], 11)
    with pytest.raises(ValueError, match=r"shape of tokens \(B, L\) = \(1, 11\); got \(1, 10\)"):
        model(tokens, segment_ids[:, :10])
    with pytest.raises(ValueError, match=r"of an integer dtype or bool; got mlx.core.float32"):
        model(tokens, segment_ids.astype(mx.float32))
    with pytest.raises(ValueError, match="repr_layers must be from 0 to 2; got 3"):
        model(tokens, repr_layers=[0, 3])
    with pytest.raises(ValueError, match="position_table"):
        mx.eval(model(mx.full((1, 41), 5))["logits"])


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_where_a_program_asks_for_it_and_not_by_a_model() -> None:
    """In a process of its own, since it is for the whole process."""
    script = (
        "import resource; import mlx.core as mx\n"
        "from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config\n"
        "from mlx_esm_kernels.ops import keep_freed_memory\n"
        "def pages():\n"
        "    touch = lambda: mx.eval(mx.ones((20_000_000,)) + 1)\n"  # 80 MB
        "    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    touch(); before = faults()\n"
        "    for _ in range(3): touch()\n"
        "    print(faults() - before)\n"
        "pages(); model = ESM1(ESM1Config(1, 8, 8, 1)); pages(); keep_freed_memory(); pages()\n"
    )
    found = subprocess.check_output([sys.executable, "-c", script])
    before, with_model, kept = map(int, found.split())
    if before < 2_000:
        pytest.skip("this system uses huge pages unasked")
    assert with_model > before / 2
    assert kept < 2_000
