"""Mutants in all their spellings, against the sequence that they change."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.mutants import _THREE_LETTERS, mutated, parse_mutants
from mlx_esm_kernels.system.errors import UserError

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"
THREE = {one: three.title() for three, one in _THREE_LETTERS.items()}


def sequence_of(text, sequence=SEQUENCE, offset=1):
    """The mutated protein; None where it is cut."""
    (mutant,) = parse_mutants([text], sequence, ESM1B, offset)
    return None if mutant.is_cut else mutated(sequence, mutant)


@pytest.mark.parametrize(
    "text",
    ["M1A", " m1a ", "p.Met1Ala", "p.(Met1Ala)", "Met1Ala", "p.M1A", "MET1ALA", "p.[Met1Ala]"],
)
def test_one_substitution_in_its_spellings(text):
    assert sequence_of(text) == "A" + SEQUENCE[1:]


@pytest.mark.parametrize(
    "text",
    [
        *(f"M1A{between}K2R" for between in (":", ",", ";", "/", "+", "|", "&", " ", " : ", "_")),
        "p.[Met1Ala;Lys2Arg]",
        "p.Met1Ala;p.Lys2Arg",
        "AR" + SEQUENCE[2:],
    ],
)
def test_two_substitutions_with_anything_between(text):
    assert sequence_of(text) == "AR" + SEQUENCE[2:]


@pytest.mark.parametrize(
    "text",
    [
        *("WT", "wt", "_wt", "wild-type", "Wild type", "=", "p.=", "p.(=)", "_sy"),
        *("M1=", "p.Met1=", "M1M"),
    ],
)
def test_the_wild_type_in_its_spellings(text):
    assert sequence_of(text) == SEQUENCE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("K2del", "MTAYIA"),
        ("K2-", "MTAYIA"),
        ("p.Lys2del", "MTAYIA"),
        ("K2_A4del", "MYIA"),
        ("p.Lys2_Ala4del", "MYIA"),
        ("K2_T3insGW", "MKGWTAYIA"),
        ("p.Lys2_Thr3insGlyTrp", "MKGWTAYIA"),
        ("K2dup", "MKKTAYIA"),
        ("p.Lys2_Ala4dup", "MKTAKTAYIA"),
        ("K2delinsGW", "MGWTAYIA"),
        ("p.Lys2_Thr3delinsGln", "MQAYIA"),
        ("K2del:Y5W", "MTAWIA"),
        ("M1_K2insG;I6_A7insG", "MGKTAYIGA"),
    ],
)
def test_insertions_and_deletions_give_the_whole_protein(text, expected):
    assert sequence_of(text, "MKTAYIA") == expected


@pytest.mark.parametrize(
    "text", ["K2*", "p.Lys2Ter", "K2Ter", "p.Lys2fs", "p.Lys2GlnfsTer5", "K2fs*9", "p.Met1?", "p.?"]
)
def test_a_protein_that_is_cut_has_no_sequence(text):
    assert sequence_of(text) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("NA", "row 1, 'NA': the mutant is missing; leave the row out"),
        ("c.34A>G", "HGVS of nucleotides; give what becomes of the protein"),
        ("K2_A4insG", "an insertion is between neighbours, such as A1_D2insG; got 2 and 4"),
        ("A4_K2del", "the range 4 to 2 ends before it begins"),
        ("R2del", "expected R at position 2; the sequence has K there"),
        ("K2_R3del", "expected R at position 3; the sequence has T there"),
        ("K2_Y99del", "position 99 is out of range"),
        ("Kyz2Ala", "'KYZ' is no residue"),
        ("K2_T3insG7", "is no mutant"),
        ("K2del:K2R", "a position is changed twice"),
    ],
)
def test_what_cannot_be_is_named(text, sentence):
    with pytest.raises(UserError, match=sentence):
        sequence_of(text)


@pytest.mark.parametrize(
    ("mutants", "sentence"),
    [
        ("M1A", "mutants must be a list; got one text: write ['M1A']"),
        ({"a": "M1A"}, "must be a list; got a dict: give its .values()"),
        (7, "must be a list; got a int"),
        ([None], "row 1: expected text; got None: a missing value"),
        (["M1A", float("nan")], "row 2: expected text; got nan: a missing value"),
        ([b"M1A"], "row 1: expected text; got bytes"),
        ([("x", "M1A")], "row 1: expected text; got a tuple of 2"),
    ],
)
def test_what_is_no_list_of_texts_is_said(mutants, sentence):
    with pytest.raises(UserError) as caught:
        parse_mutants(mutants, SEQUENCE, ESM1B, 1)
    assert sentence in str(caught.value)


def test_anything_that_can_be_gone_through_is_a_list():
    class Series:
        """As a filtered one of pandas: its places are not its labels."""

        def __iter__(self):
            return iter(["M1A", "G2S"])

        def __getitem__(self, label):
            raise KeyError(label)

    with pytest.raises(UserError, match="row 2, 'G2S': expected G at position 2; the sequence"):
        parse_mutants(Series(), SEQUENCE, ESM1B, 1)
    assert len(parse_mutants((m for m in ["M1A"]), SEQUENCE, ESM1B, 1)) == 1


@given(
    st.sets(st.integers(0, len(SEQUENCE) - 1), min_size=1, max_size=4),
    st.lists(st.sampled_from(STANDARD_RESIDUES), min_size=4, max_size=4),
    st.integers(-5, 300),
    st.sampled_from([":", ",", ";", "/", " "]),
    st.booleans(),
    st.booleans(),
)
def test_every_spelling_is_the_same_mutant(places, letters, offset, between, three, lower):
    parts, expected = [], list(SEQUENCE)
    for place, new in zip(sorted(places), letters, strict=False):
        old, number = SEQUENCE[place], place + offset
        parts.append(f"{THREE[old]}{number}{THREE[new]}" if three else f"{old}{number}{new}")
        expected[place] = new
    text = between.join(parts)
    text = f"p.[{text}]" if three and between == ";" else text
    assert sequence_of(text.lower() if lower else text, offset=offset) == "".join(expected)


@given(
    st.text(max_size=30) | st.from_regex(r"[A-Z]\d+(del|dup|ins|fs|[A-Z])?[A-Z]*", fullmatch=True)
)
def test_any_text_is_a_mutant_or_one_sentence(text):
    with contextlib.suppress(UserError):
        sequence_of(text)
