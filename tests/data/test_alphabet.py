"""The alphabet: ESM-1b's ids, and an answer to every character."""

import json
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import (
    ESM1_ALPHABET,
    ESM1B,
    ESM1B_TOKENS,
    RESIDUES,
    STANDARD_RESIDUES,
    Alphabet,
    UnknownResidueWarning,
    warn_unknown,
)


def test_ids_are_those_of_esm1b():
    assert len(ESM1B) == 33
    assert (ESM1B.cls_idx, ESM1B.padding_idx, ESM1B.eos_idx, ESM1B.unk_idx) == (0, 1, 2, 3)
    assert ESM1B.tokens[31:] == ("<null_1>", "<mask>")
    assert ESM1B.mask_idx == 32
    assert ESM1B.encode("LAGVSERTIDPKQNFYMHWCXBUZO.-").tolist() == list(range(4, 31))


def test_amino_acid_ids_are_the_twenty_standard_residues():
    assert ESM1B.decode(ESM1B.amino_acid_ids) == STANDARD_RESIDUES
    assert ESM1B.amino_acid_ids.tolist() == [
        5, 23, 13, 9, 18, 6, 21, 12, 15, 4, 20, 17, 14, 16, 10, 8, 11, 7, 22, 19,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        ESM1B.amino_acid_ids[0] = 1


def test_lower_case_is_read_as_upper_case():
    assert ESM1B.encode("mktay").tolist() == ESM1B.encode("MKTAY").tolist()


def test_spaces_and_line_ends_are_ignored():
    unknown = Counter()
    expected = ESM1B.encode("MKTAY").tolist()
    assert ESM1B.encode(" MK\tTA\r\nY\x0b\x0c ", unknown).tolist() == expected
    assert ESM1B.encode("MK\u00a0TA\u2028Y", unknown).tolist() == expected
    assert not unknown
    ESM1B.encode("M\u00a0J", unknown)
    assert unknown == Counter("J")


def test_what_is_no_residue_becomes_unk_and_is_counted():
    unknown = Counter()
    ids = ESM1B.encode("MJ*K?j\u00e9\U0001f9ec", unknown)
    unk = ESM1B.unk_idx
    assert ids.tolist() == [20, unk, unk, 15, unk, unk, unk, unk]
    assert unknown == Counter({"J": 1, "*": 1, "?": 1, "j": 1, "\u00e9": 1, "\U0001f9ec": 1})
    ESM1B.encode("**", unknown)
    assert unknown["*"] == 3


def test_an_empty_sequence_has_no_ids():
    ids = ESM1B.encode("")
    assert ids.shape == (0,)
    assert ids.dtype == np.uint8


@given(st.text(RESIDUES, max_size=200))
def test_decode_undoes_encode(sequence):
    assert ESM1B.decode(ESM1B.encode(sequence)) == sequence


@given(st.text(max_size=50))
def test_encode_equals_a_loop_over_characters(text):
    expected = [
        ESM1B.tokens.index(c.upper()) if c.isascii() and c.upper() in RESIDUES else ESM1B.unk_idx
        for c in text
        if not c.isspace()
    ]
    unknown = Counter()
    assert ESM1B.encode(text, unknown).tolist() == expected
    assert unknown.total() == expected.count(ESM1B.unk_idx)


def test_decode_writes_special_tokens_in_full():
    assert ESM1B.decode([0, 20, 15, 32, 3, 2]) == "<cls>MK<mask><unk><eos>"
    assert ESM1B.decode(np.array([], dtype=np.int32)) == ""


@pytest.mark.parametrize("ids", [[33], [5, -1]])
def test_decode_refuses_ids_without_a_token(ids):
    with pytest.raises(ValueError, match=rf"\[decode\] ids must be in \[0, 33\); got {ids[-1]}"):
        ESM1B.decode(ids)


def test_one_warning_names_characters_and_counts():
    with pytest.warns(UnknownResidueWarning) as caught:
        warn_unknown(Counter({"*": 1200, "J": 2}))
    assert [str(w.message) for w in caught] == [
        "1,202 characters are no residues and were read as <unk>: '*' (1,200 times), 'J' (2 times)."
    ]


def test_the_warning_stays_short_and_counts_to_one():
    with pytest.warns(UnknownResidueWarning, match=r"'0' \(1 times\).* and 5 more\.$"):
        warn_unknown(Counter("0123456789!?;:,"))
    with pytest.warns(UnknownResidueWarning, match=r"^1 character is no residue and was read"):
        warn_unknown(Counter("J"))


def test_nothing_unknown_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unknown(Counter())


def test_an_alphabet_survives_json():
    copy = Alphabet.from_dict(json.loads(json.dumps(ESM1B.to_dict())))
    assert copy == ESM1B
    assert hash(copy) == hash(ESM1B)
    assert copy.encode("MKJ").tolist() == ESM1B.encode("MKJ").tolist()


def test_another_order_of_tokens_gives_other_ids():
    other = Alphabet(reversed(ESM1B_TOKENS))
    assert other != ESM1B
    assert other.mask_idx == 0
    assert other.encode("L").tolist() == [28]


@pytest.mark.parametrize("state", [{}, {"tokens": "LAGV"}, {"tokens": [1, 2]}, None])
def test_from_dict_says_what_it_expected(state):
    with pytest.raises(ValueError, match=r"\[Alphabet.from_dict\] expected"):
        Alphabet.from_dict(state)


def test_tokens_must_be_complete_and_distinct():
    with pytest.raises(ValueError, match=r"must include \['<mask>'\]"):
        Alphabet(ESM1B_TOKENS[:-1])
    with pytest.raises(ValueError, match=r"must occur once; got \['L'\]"):
        Alphabet([*ESM1B_TOKENS, "L"])
    with pytest.raises(ValueError, match="at most 256 tokens"):
        Alphabet([*ESM1B_TOKENS, *map(str, range(250))])


def test_ids_are_those_of_esm1():
    assert len(ESM1_ALPHABET) == 35
    assert ESM1_ALPHABET.tokens[:4] == ("<null_0>", "<pad>", "<eos>", "<unk>")
    assert ESM1_ALPHABET.tokens[31:] == ("<null_1>", "<cls>", "<mask>", "<sep>")
    assert ESM1_ALPHABET.encode("LAGV.-").tolist() == ESM1B.encode("LAGV.-").tolist()
    assert (ESM1_ALPHABET.cls_idx, ESM1_ALPHABET.mask_idx) == (32, 33)


@pytest.mark.parametrize("prepend_cls", [True, False])
@pytest.mark.parametrize("append_eos", [True, False])
@pytest.mark.parametrize("residues", ["", "M", "MKT"])
def test_cls_and_eos_stand_around_a_protein_where_the_alphabet_has_them(
    prepend_cls, append_eos, residues
):
    alphabet = Alphabet(prepend_cls=prepend_cls, append_eos=append_eos)
    ids = alphabet.encode(residues)
    tokens = alphabet.with_specials(ids)
    assert tokens.tolist() == [0] * prepend_cls + ids.tolist() + [2] * append_eos
    assert alphabet.num_specials == prepend_cls + append_eos
    assert tokens[alphabet.residue_slice].tolist() == ids.tolist()
    assert Alphabet.from_dict(json.loads(json.dumps(alphabet.to_dict()))) == alphabet
    assert (alphabet == ESM1B) == (prepend_cls and append_eos)


def test_a_description_without_specials_is_that_of_an_older_file_and_has_both():
    assert Alphabet.from_dict({"tokens": list(ESM1B_TOKENS)}) == ESM1B
    with pytest.raises(ValueError, match="append_eos must be a bool; got 'no'"):
        Alphabet.from_dict({"tokens": list(ESM1B_TOKENS), "append_eos": "no"})
