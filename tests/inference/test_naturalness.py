"""Generated proteins beside natural ones: relatives, copies, and what a model says."""

import math
import re

import numpy as np
import pytest
from random_models import esm1, esm1b

from mlx_esm_kernels.commands.judge_words import TWIN, findings
from mlx_esm_kernels.data import natural_range, nearest
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.proteins import Proteins
from mlx_esm_kernels.inference.clustered import Mean
from mlx_esm_kernels.inference.likelihood import pseudo_perplexity
from mlx_esm_kernels.inference.naturalness import Likelihood, Likelihoods, assess
from mlx_esm_kernels.system.errors import DataError, UserError


def at_random(count, seed=0, *, cysteine=0.01, begin="M", shortest=30, longest=50):
    rng = np.random.default_rng(seed)
    shares = np.full(20, (1 - cysteine) / 19)
    shares[STANDARD_RESIDUES.index("C")] = cysteine
    return [
        begin + "".join(rng.choice(list(STANDARD_RESIDUES), int(n), p=shares))
        for n in rng.integers(shortest, longest, size=count)
    ]


NATURAL = at_random(80, 1)


def assessed(generated, natural=NATURAL, **options):
    sets = (Proteins.from_sequences(some) for some in (generated, natural))
    return assess(*sets, ESM1B, **options)


def said(generated, natural=NATURAL, **options):
    return " ".join(findings(assessed(generated, natural, **options)))


def likelihood(nats, error=0.01):
    return Likelihood(Mean(nats, error), [math.exp(nats)])


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(natural_range, "_MOST_DRAWS", 200)
    monkeypatch.setattr(nearest, "CANDIDATES", 8)


# What is off is said


def test_nothing_is_off_where_all_is_the_same():
    assert said(at_random(12, 2)) == ""


@pytest.mark.parametrize("count", [12, 30])
def test_eleven_times_the_cysteine_is_said(count):
    words = said(at_random(count, 3, cysteine=0.11))
    found = re.search(r"Cysteine is (\S+) times as frequent", words)
    assert float(found[1]) == pytest.approx(11, abs=3)


def test_a_residue_that_is_missing_is_said():
    generated = [text.replace("K", "R") for text in at_random(30, 3)]
    words = said(generated)
    assert "Lysine does not occur" in words
    assert "Arginine is 2." in words


def test_where_many_residues_are_off_the_others_are_letters():
    words = said(["M" + "".join(text[i % 9] for i in range(40)) for text in at_random(12, 3)])
    assert words.count("as frequent as") + words.count("does not occur") <= 4


def test_neighbours_that_are_unlike_natural_ones_are_said():
    # The same residues in order of the alphabet.
    words = said(["M" + "".join(sorted(text[1:])) for text in at_random(12, 2)])
    assert "Which residue stands beside which is unlike that" in words
    assert "The mix of residues" not in words
    assert "of windows are of low complexity" in words


def test_a_missing_m_is_said():
    assert "0% begin with M; of natural proteins 100% do." in said(at_random(12, 2, begin="A"))


def test_copies_and_near_copies_of_natural_proteins_are_said():
    near = [f"{text[:20]}W{text[21:]}" for text in NATURAL[10:20]]
    words = said([*NATURAL[:3], *near])
    assert "3 of 13 are exact copies of natural proteins." in words
    assert "13 of 13 are more than 90% identical to a natural protein" in words


def test_repeats_and_near_repeats_are_said():
    generated = at_random(12, 2)
    near = [f"{text}A" for text in generated]
    words = said([*generated, *near, *generated[:4]])
    assert "4 of 28 repeat another one exactly." in words
    assert "28 of 28 are more than 95% identical to another generated one." in words


def test_relatives_that_natural_proteins_have_and_generated_ones_have_not_are_said():
    families = [f"{text[:15]}{end}{text[17:]}" for text in NATURAL[:30] for end in ("WW", "KK")]
    words = said(at_random(30, 4), families)
    assert "None has a natural relative of more than 40% identity; of natural" in words
    assert "have one" in words


def test_other_lengths_are_said():
    assert "They are longer than 95 % of" in said(at_random(12, 2, shortest=100, longest=110))
    assert "They are shorter than 95 % of" in said(at_random(12, 2, shortest=13, longest=15))


def test_the_same_seed_finds_the_same():
    generated = at_random(30, 2)
    first, again = (assessed(generated, sample=5, seed=9, model=esm1b()) for _ in range(2))
    other = assessed(generated, sample=5, seed=8, model=esm1b())
    assert first.to_natural == again.to_natural != other.to_natural
    assert first.likelihoods == again.likelihoods != other.likelihoods


# Relatives


def test_only_a_sample_is_aligned_but_every_copy_is_found():
    found = assessed([*NATURAL[:5], *at_random(20, 2)], sample=4)
    assert len(found.to_natural.relatives) == len(found.natural_to_natural.relatives) == 4
    assert found.copies == 5


def test_identities_count_from_half_coverage_on():
    # A part of a natural protein, in another of more than twice its length.
    found = assessed([NATURAL[0][:15] + at_random(1, 7)[0]])
    assert found.to_natural.identities[0] > 0.9
    assert found.to_natural.above(0.9) == 0


def test_one_protein_has_no_twin():
    assert assessed(NATURAL[:1]).twins is None
    assert assessed([*NATURAL[:1], *NATURAL[:1]]).twins.above(TWIN) == 2


@pytest.mark.parametrize("num_natural", [1, 2, 3])
def test_a_few_natural_proteins_tell_little_but_never_nonsense(num_natural):
    found = assessed(at_random(6, 2), NATURAL[:num_natural], model=esm1b(), sample=3)
    assert found.comparison.size == num_natural // 2
    figures = [*found.comparison.figures.values(), *found.comparison.residues]
    assert all(one.value is None or math.isfinite(one.value) for one in figures)
    assert (found.natural_to_natural is None) == (num_natural == 1)
    assert math.isfinite(found.likelihoods.beyond_natural.value)


def test_proteins_of_other_letters_alone_are_left_out():
    found = assessed([4 * "X", *at_random(3, 2)], [*NATURAL, "XX"], model=esm1b())
    assert (len(found.generated), len(found.to_natural.relatives)) == (3, 3)
    assert len(found.natural) == len(NATURAL)


def test_no_residue_at_all_is_a_sentence():
    with pytest.raises(DataError, match="The generated proteins have none of the 20"):
        assessed(["XX"])
    with pytest.raises(DataError, match="The natural proteins have none of the 20"):
        assessed(NATURAL, ["XX"])


# A model


def test_pseudo_perplexity_is_that_of_all_residues_of_short_proteins():
    model = esm1b()
    generated = [text[:20] for text in at_random(3, 2)]
    found = assessed(generated, model=model).likelihoods
    expected = [
        pseudo_perplexity(model, ESM1B.with_specials(ESM1B.encode(text))[None])[0]
        for text in generated
    ]
    assert found.generated.by_protein == pytest.approx(expected, rel=1e-4)
    assert found.generated.nats.value == pytest.approx(np.log(expected).mean(), rel=1e-4)


@pytest.mark.parametrize("model", [esm1, esm1b])
def test_proteins_that_are_longer_than_the_table_are_seen_in_windows(model):
    found = assessed(at_random(2, 2, shortest=90, longest=91), model=model())
    assert math.isfinite(found.likelihoods.generated.perplexity)


def test_the_place_is_between_natural_and_shuffled():
    some = Likelihoods(likelihood(2.2), likelihood(2.0), likelihood(2.8), Mean(0.8, 0.01))
    assert some.place == pytest.approx(0.25)
    assert some.beyond_natural.value == pytest.approx(0.2)
    assert some.before_shuffled.value == pytest.approx(0.6)
    assert some.before_shuffled.error == pytest.approx(math.hypot(0.01, 0.01))


@pytest.mark.parametrize("error", [0.3, None])
def test_a_model_that_does_not_tell_shuffled_ones_apart_gives_no_place(error):
    some = Likelihoods(likelihood(2.2), likelihood(2.0), likelihood(2.8), Mean(0.8, error))
    assert some.place is None


def test_a_model_without_a_language_head_is_refused():
    with pytest.raises(UserError, match="no language head"):
        assessed(at_random(2, 2), model=esm1b(language_head=False))
