"""embed(): what the model's layers hold, the same for a protein in any company."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import esm1, esm1b

from mlx_esm_kernels import embed, predict_contacts
from mlx_esm_kernels.data.alphabet import UnknownResidueWarning
from mlx_esm_kernels.inference.embedding import INCLUDES, Embedder
from mlx_esm_kernels.inference.windows import tile

MODELS = {"esm1b": esm1b(), "esm1": esm1()}
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"


def close(actual, expected, dtype=mx.float32):
    tolerance = {mx.float32: 1e-5, mx.float16: 1e-2, mx.bfloat16: 1e-1}[dtype]
    actual, expected = (np.array(x.astype(mx.float32)) for x in (actual, expected))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(1, np.abs(expected).max())


def alone(model, sequence, layer):
    """What the model itself says of one protein: (tokens, C)."""
    tokens = model.alphabet.with_specials(model.alphabet.encode(sequence))
    return model(mx.array(tokens[None]), repr_layers=[layer])["representations"][layer][0]


@pytest.mark.parametrize("name", MODELS)
@given(sequences=st.lists(st.text(LETTERS, min_size=1, max_size=38), min_size=1, max_size=8))
def test_packed_proteins_have_the_embedding_that_the_model_gives_each_alone(name, sequences):
    model = MODELS[name]
    found = list(embed(model, sequences, layers=(0, 1, -1), include=INCLUDES))
    assert len(found) == len(sequences)
    for sequence, embedding in zip(sequences, found, strict=True):
        for layer in (0, 1, 2):
            x = alone(model, sequence, layer)
            residues = x[model.alphabet.residue_slice]
            assert len(residues) == len(sequence)
            close(embedding.per_residue[layer], residues)
            close(embedding.mean[layer], residues.mean(axis=0))
            close(embedding.bos[layer], x[0])
        tokens = model.alphabet.with_specials(model.alphabet.encode(sequence))
        close(embedding.contacts, predict_contacts(model, mx.array(tokens)))


def test_contacts_in_windows_are_the_mean_of_those_that_see_both_residues():
    model = MODELS["esm1b"]
    most = model.config.trained_residues
    sequence = ("MKTAYIAKQRGAVLWDEPSN" * 5)[: 2 * most - 5]
    (embedding,) = embed(model, [sequence], include=["contacts"], long="window")
    contacts = np.array(embedding.contacts)
    sums, counts = (np.zeros((len(sequence),) * 2) for _ in range(2))
    windows = tile(len(sequence), most)
    assert len(windows) == 3
    for window in windows:
        part = sequence[window.start : window.end]
        tokens = model.alphabet.with_specials(model.alphabet.encode(part))
        seen = slice(window.start, window.end)
        sums[seen, seen] += np.array(predict_contacts(model, mx.array(tokens)))
        counts[seen, seen] += 1
    np.testing.assert_allclose(contacts, sums / np.maximum(counts, 1), atol=1e-6)
    np.testing.assert_allclose(contacts, contacts.T, atol=1e-6)
    assert (contacts[counts == 0] == 0).all()
    assert (counts == 0).any()


def test_a_protein_that_fits_has_the_same_contacts_with_windows():
    model = MODELS["esm1b"]
    whole, windows = (
        next(embed(model, ["MKTAYIAKQR"], include=["contacts"], long=long))
        for long in ("error", "window")
    )
    assert mx.array_equal(whole.contacts, windows.contacts)


class Seq:
    """As Biopython's."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


Seq.__module__ = "Bio.Seq"


@pytest.mark.parametrize(
    ("sequences", "sentence"),
    [
        ("MKTAY", "sequences must be a list; got one text: write ['MKTAY']"),
        (b"MKTAY", "sequences must be a list; got one text"),
        ({"a": "MKT"}, "sequences must be a list; got a dict: give its .values()"),
        (Path("p.fasta"), "sequences must be a list of texts; got the path 'p.fasta'"),
        (None, "sequences must be a list; got a NoneType"),
        ([("a", "MKTAY")], "sequence 1: expected text; got a tuple of 2. Of pairs (label, "),
        (["MKT", None], "sequence 2: expected text; got None: a missing value"),
        ([float("nan")], "sequence 1: expected text; got nan: a missing value"),
        ([b"MKT"], "sequence 1: expected text; got bytes: decode them"),
        ([["MKT"]], "sequence 1: expected text; got a list of 1"),
        (["p.fasta"], "sequence 1: expected a sequence; got what looks like a file"),
        ([7], "sequence 1: expected text; got a int"),
        (["*"], "sequence 1 has no residues"),
    ],
)  # fmt: skip
def test_what_are_no_sequences_are_refused_with_a_sentence(sequences, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        list(embed(MODELS["esm1b"], sequences))
    assert sentence in str(caught.value)


def test_what_is_no_model_is_refused_with_a_sentence():
    with pytest.raises(TypeError, match="expected a model, of load_model or ESM1; got a str"):
        embed("weights.safetensors", ["MKT"])


@pytest.mark.parametrize(
    "sequences", [np.array(["MKT", "GGS"]), iter(["MKT", "GGS"]), (Seq("MKT"), Seq("GGS"))]
)
def test_sequences_come_in_anything_that_can_be_gone_through(sequences):
    found = [e.mean[2] for e in embed(MODELS["esm1b"], sequences)]
    for mean, expected in zip(found, embed(MODELS["esm1b"], ["MKT", "GGS"]), strict=True):
        assert mx.array_equal(mean, expected.mean[2])


def test_a_stop_is_left_out_and_other_odd_letters_are_said_once():
    model = MODELS["esm1b"]
    with pytest.warns(UnknownResidueWarning) as caught:
        stop, other = embed(model, ["MKTAY*", "MKT1*AY"], include=["mean", "per-residue"])
    assert len(caught) == 1
    assert "2 characters are no residues and were read as <unk>: '1' (1 times), '*'" in str(
        caught[0].message
    )
    (plain,) = embed(model, ["MKTAY"], include=["mean", "per-residue"])
    close(stop.mean[2], plain.mean[2])
    assert stop.per_residue[2].shape == plain.per_residue[2].shape
    assert len(other.per_residue[2]) == 7


def test_only_what_is_asked_for_is_there_under_the_numbers_of_the_layers():
    (embedding,) = embed(MODELS["esm1b"], ["MKT"], layers=(-1, -2, 2), include=("mean",))
    assert list(embedding.mean) == [1, 2]
    assert (embedding.per_residue, embedding.bos, embedding.contacts) == ({}, {}, None)


def test_sequences_are_read_as_they_are_needed():
    seen = []

    def sequences():
        for number in range(100_000):
            seen.append(number)
            yield "MKTAYIAKQR" * 3

    next(embed(MODELS["esm1b"], sequences()))
    assert 1 < len(seen) < 1000


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_embeddings_are_in_the_dtype_of_the_model(dtype):
    model = esm1b()
    expected = next(embed(model, ["MKTAYIAKQR" * 3]))
    model.set_dtype(dtype)
    found = next(embed(model, ["MKTAYIAKQR" * 3], include=("mean", "per-residue", "bos")))
    assert found.mean[2].dtype == found.per_residue[2].dtype == found.bos[2].dtype == dtype
    close(found.mean[2], expected.mean[2], dtype)


@pytest.mark.parametrize("name", MODELS)
def test_a_long_protein_is_seen_in_windows_each_residue_from_the_middle_of_one(name):
    model = MODELS[name]
    most = model.config.trained_residues
    rng = np.random.default_rng(1)
    sequence = "".join(rng.choice(list(LETTERS), 2 * most))
    include = ("mean", "per-residue", "bos")
    before, found, after = embed(model, ["MKT", sequence, "MKT"], include=include, long="window")
    close(before.mean[2], after.mean[2])
    # Three windows, of which the middle one begins at half a window.
    starts = [0, most // 2, most]
    windows = [alone(model, sequence[start : start + most], 2) for start in starts]
    residues = [x[model.alphabet.residue_slice] for x in windows]
    first, second = (starts[1] + most) // 2, (starts[2] + starts[1] + most) // 2
    expected = mx.concatenate(
        [
            residues[0][:first],
            residues[1][first - starts[1] : second - starts[1]],
            residues[2][second - starts[2] :],
        ]
    )
    close(found.per_residue[2], expected)
    close(found.mean[2], expected.mean(axis=0))
    close(found.bos[2], mx.stack([x[0] for x in windows]).mean(axis=0))


def test_windows_of_one_protein_may_need_several_passes():
    model = MODELS["esm1b"]
    ids = model.alphabet.encode("MKTAYIAKQR" * 30)
    flags = {"include": ("mean", "per-residue", "bos"), "long": "window"}
    (whole,) = Embedder(model, **flags).run([ids])
    (pieces,) = Embedder(model, tokens_per_pass=70, **flags).run([ids])
    close(pieces.per_residue[2], whole.per_residue[2])
    close(pieces.mean[2], whole.mean[2])


@given(
    lengths=st.lists(st.integers(1, 38), min_size=1, max_size=40),
    tokens=st.integers(1, 200),
    begin=st.integers(0, 40),
)
def test_groups_keep_the_order_and_begin_anew_at_any_of_their_ends(lengths, tokens, begin):
    embedder = Embedder(MODELS["esm1b"], tokens_per_pass=tokens)
    groups = list(embedder.groups(range(len(lengths)), lengths.__getitem__))
    assert [place for group in groups for place in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[place] + 2 for place in group) <= tokens
    rest = groups[begin % len(groups) :]
    again = embedder.groups(range(rest[0][0], len(lengths)), lengths.__getitem__)
    assert list(again) == rest


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"layers": ()}, "layers must be from -3 to 2, at least one; got none"),
        ({"layers": (1, 3, -4)}, "layers must be from -3 to 2, at least one; got 3, -4"),
        ({"include": ()}, "include must be some of"),
        ({"include": ("median",)}, r"include must be some of .* got \('median',\)"),
        ({"long": "crop"}, "long must be one of .* got 'crop'"),
    ],
)
def test_what_cannot_be_asked_of_a_model_is_said_at_once(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        embed(MODELS["esm1b"], [], **flags)


def test_contacts_of_a_model_without_a_regression_are_refused_at_once():
    with pytest.raises(ValueError, match=r"no contact regression.*ESM-1v has none"):
        embed(esm1b(contact_head=False), [], include=("contacts",))


@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [("", "sequence 2 has no residues"), ("M" * 39, "sequence 2 has 39 residues; .* ends at 38")],
)
def test_a_sequence_that_cannot_be_embedded_is_named(sequence, sentence):
    with pytest.raises(ValueError, match=sentence):
        list(embed(MODELS["esm1b"], ["MKT", sequence]))


@pytest.mark.parametrize("include", INCLUDES)
def test_nan_is_an_error_and_no_embedding(include):
    model = esm1b()
    layer = model.layers[0].self_attn
    layer.q_proj.bias = layer.q_proj.bias + float("nan")
    with pytest.raises(ValueError, match="NaN or infinity: its weights are damaged"):
        next(embed(model, ["MKT"], include=(include,)))


def test_float16_that_overflows_is_told_from_damage():
    model = esm1b()
    model.layers[0].fc2.bias = model.layers[0].fc2.bias + 60_000.0
    next(embed(model, ["MKT"]))
    model.layers[1].fc2.bias = model.layers[1].fc2.bias + 60_000.0
    model.set_dtype(mx.float16)
    with pytest.raises(ValueError, match="too large for float16: try float32 or bfloat16"):
        next(embed(model, ["MKT"]))
