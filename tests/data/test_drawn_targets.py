"""Targets: a draw that depends on each protein alone; what baselines and the floor say there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES, Alphabet
from mlx_esm_kernels.data.baselines import (
    FREQUENCIES,
    NEIGHBOURS,
    PSEUDO_PAIRS,
    BaselineCounts,
)
from mlx_esm_kernels.data.floor import floor_answers
from mlx_esm_kernels.data.masking import TO_MEASURE
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.data.synthetic import make_sample
from mlx_esm_kernels.data.targets import Targets, draw_targets, symbols
from mlx_esm_kernels.system.errors import DataError

REVERSED = Alphabet(("<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *STANDARD_RESIDUES[::-1], "X"))


def random_sequences(count, seed=0, shortest=1, longest=60, letters=STANDARD_RESIDUES):
    rng = np.random.default_rng(seed)
    return [
        "".join(rng.choice(list(letters), int(rng.integers(shortest, longest + 1))))
        for _ in range(count)
    ]


def draw(sequences, draws=None, alphabet=ESM1B):
    proteins = Proteins.from_sequences(sequences, alphabet)
    return draw_targets(proteins, np.arange(len(proteins)), alphabet, draws)


def by_sequence(targets):
    """The positions of each draw, by the sequence of the protein."""
    found = {}
    for copy in range(len(targets.copies)):
        sequence = targets.alphabet.decode(targets.ids(copy))
        positions = targets.positions[targets.of_copy(copy)].tolist()
        found.setdefault(sequence, []).append(positions)
    return found


@given(st.randoms(use_true_random=False))
def test_a_protein_has_the_same_masks_whatever_is_around_it(random):
    sequences = list(dict.fromkeys(random_sequences(12)))
    whole = by_sequence(draw(sequences, 3))
    some = random.sample(sequences, random.randint(1, len(sequences)))
    assert by_sequence(draw(some, 3)) == {sequence: whole[sequence] for sequence in some}


def test_a_protein_has_the_same_masks_in_any_alphabet():
    sequences = [*random_sequences(12), "MXXKTAYIAKQR"]
    assert by_sequence(draw(sequences, 2)) == by_sequence(draw(sequences, 2, REVERSED))


def test_fewer_draws_are_the_first_of_more_draws():
    sequences = random_sequences(9)
    few, many = by_sequence(draw(sequences, 2)), by_sequence(draw(sequences, 9))
    assert few == {sequence: positions[:2] for sequence, positions in many.items()}


@given(st.text(STANDARD_RESIDUES + "XB", min_size=1, max_size=80), st.integers(1, 9))
def test_a_draw_takes_15_percent_of_the_standard_residues_and_no_others(sequence, draws):
    candidates = sum(letter in STANDARD_RESIDUES for letter in sequence)
    if not candidates:
        with pytest.raises(DataError, match="none of the 20 amino acids"):
            draw([sequence], draws)
        return
    targets = draw([sequence], draws)
    assert targets.draws == draws == len(targets.copies)
    for copy in range(draws):
        own = targets.of_copy(copy)
        positions = targets.positions[own].tolist()
        assert len(set(positions)) == max(1, round(0.15 * candidates))
        assert positions == sorted(positions)
        assert [sequence[i] for i in positions] == [
            STANDARD_RESIDUES[residue] for residue in targets.residues[own]
        ]


def test_the_first_draws_have_no_residue_in_common():
    targets = draw(random_sequences(1, shortest=300, longest=300), 6)
    assert len(set(targets.positions.tolist())) == len(targets) == 6 * 45


def test_there_are_as_many_draws_as_give_enough_targets_but_not_more_than_six():
    assert draw(random_sequences(1)).draws == 6
    assert draw(random_sequences(500, shortest=60)).draws == 3  # 9 a draw and protein
    assert draw(random_sequences(1500, shortest=60)).draws == 1


def test_of_proteins_that_are_the_same_one_is_measured():
    targets = draw(["MKTAYIAKQR", "MKQRQI", "MKTAYIAKQR"], 2)
    assert len(targets.indices) == 2
    assert len(targets.copies) == 4


def test_the_first_copies_are_the_first_targets():
    targets = draw(random_sequences(6), 2)
    some = targets.first(5)
    end = int(targets.offsets[5])
    assert len(some) == end
    assert (some.positions == targets.positions[:end]).all()
    assert (some.owners == targets.owners[:end]).all()


# Baselines


def one_target(sequence, *positions):
    """Targets at some positions of a single protein, in one copy."""
    proteins = Proteins.from_sequences([sequence])
    residues = symbols(ESM1B)[proteins[0]][list(positions)]
    return Targets(
        proteins,
        ESM1B,
        np.array([0]),
        1,
        np.array([0]),
        np.array([0, len(positions)]),
        np.array(positions, dtype=np.int32),
        residues,
    )


def counts(*sequences):
    proteins = Proteins.from_sequences(sequences)
    return BaselineCounts(proteins, np.arange(len(sequences)), ESM1B)


def test_residue_frequencies_are_counts_and_one():
    answers = counts("AAC", "AD").answers(one_target("AWC", 0, 1))[FREQUENCIES]
    assert np.exp(-answers.nats) == pytest.approx([(3 + 1) / (5 + 20), 1 / 25])
    assert answers.is_right.tolist() == [True, False]  # A is the likeliest


def chances_by_hand(*sequences):
    """p(a) and p(b | a), letters and ^$ for the ends, by counting texts."""
    letters, ends = STANDARD_RESIDUES, "$"
    single = {a: sum(s.count(a) for s in sequences) + 1 for a in letters}
    total = sum(single.values())
    pairs = [(f"${s}$"[i], f"${s}$"[i + 1]) for s in sequences for i in range(len(s) + 1)]
    known = [(a, b) for a, b in pairs if {a, b} <= set(letters + ends)]
    overall = {b: (sum(y == b for _, y in known) + 1) / (len(known) + 21) for b in letters + ends}

    def following(a, b):
        after = sum(x == a for x, _ in known)
        return (known.count((a, b)) + PSEUDO_PAIRS * overall[b]) / (after + PSEUDO_PAIRS)

    return {a: n / total for a, n in single.items()}, following


def neighbours_by_hand(left, right, *sequences):
    """p(a | left, right) for each letter a; None: that neighbour is left out."""
    single, following = chances_by_hand(*sequences)
    product = {
        a: (single[a] if left is None else following(left, a))
        * (1 if right is None else following(a, right))
        for a in STANDARD_RESIDUES
    }
    return {a: x / sum(product.values()) for a, x in product.items()}


@pytest.mark.parametrize(
    ("sequence", "positions", "left", "right"),
    [
        ("MKTAY", [2], "K", "A"),
        ("MKTAY", [0], "$", "K"),  # the start of a protein is a neighbour
        ("MKTAY", [4], "A", "$"),
        ("MKTAY", [2, 3], "K", None),  # a masked neighbour is left out
        ("MKTAY", [2, 1], None, "A"),
        ("MKTAY", [2, 1, 3], None, None),
        ("MXTAY", [2], None, "A"),  # and so is what is no residue
    ],
)
def test_neighbours_are_what_is_seen_beside_a_residue(sequence, positions, left, right):
    learned = ("MKTAYTAKTA", "AKXTAM", "MKAA")
    answers = counts(*learned).answers(one_target(sequence, *positions))[NEIGHBOURS]
    expected = neighbours_by_hand(left, right, *learned)[sequence[positions[0]]]
    assert math.exp(-answers.nats[0]) == pytest.approx(expected)


def test_no_protein_predicts_itself():
    """The counts less a protein's own are those of the others; duplicates count once."""
    one, others = "MKTAYIAKQRQISFVK", ["MKVAAG", "AKTWGGA"]
    target = one_target(one, 3, 7, 8)
    alone = counts(*others).answers(target)
    for with_it in (counts(one, *others), counts(*others, one, one)):
        for name, answers in with_it.answers(target).items():
            assert answers.nats == pytest.approx(alone[name].nats)


def test_a_protein_alone_is_a_guess_among_20():
    answers = counts("MKTAYIAKQR").answers(one_target("MKTAYIAKQR", 4))
    assert math.exp(answers[FREQUENCIES].nats[0]) == pytest.approx(20)
    assert math.exp(answers[NEIGHBOURS].nats[0]) == pytest.approx(20)


def test_neighbours_beat_frequencies_where_residues_follow_each_other():
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(["AC", "DE", "FG"], 20)) for _ in range(200)]
    targets = draw(sequences, 1)
    answers = counts(*sequences).answers(targets)
    assert answers[NEIGHBOURS].nats.mean() < answers[FREQUENCIES].nats.mean() - 0.5
    assert answers[NEIGHBOURS].is_right.mean() > 0.6


# The floor


def test_the_floor_is_that_of_the_families():
    families = make_sample(num_proteins=40)
    targets = draw_targets(families.proteins, np.arange(40), ESM1B, 2)
    floor = floor_answers(families, targets)
    total = 0.0
    for copy in range(len(targets.copies)):
        tokens = ESM1B.with_specials(targets.ids(copy))[None]
        is_target = np.zeros(tokens.shape, dtype=bool)
        is_target[0, targets.positions[targets.of_copy(copy)] + 1] = True
        inputs = np.where(is_target, ESM1B.mask_idx, tokens)
        segments = np.ones_like(tokens)
        total += families.optimal_loss(inputs, tokens, segments, is_target, TO_MEASURE)[0]
    assert floor.nats.sum() == pytest.approx(total)
    assert 0.5 < floor.is_right.mean() < 0.8
