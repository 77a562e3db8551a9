"""`mlx_esm_kernels.generate`: proteins as text, and sentences for what cannot be."""

import pytest
from random_models import esm1b

import mlx_esm_kernels
from mlx_esm_kernels import Sampling

AMINO_ACIDS = set("ACDEFGHIKLMNPQRSTVWY")


@pytest.fixture(scope="module")
def model():
    return esm1b()


def generate(*arguments, **named):
    return mlx_esm_kernels.generate(*arguments, **named)


def test_numbers_are_lengths_and_texts_are_residues_and_masks(model):
    drawn = []
    how = Sampling(rounds=2)
    first, second, third = generate(model, [7, "MK**w", 12], how, on_step=drawn.append)
    assert (len(first), len(second), len(third)) == (7, 5, 12)
    assert (second[:2], second[4]) == ("MK", "W")
    assert set(first + second + third) <= AMINO_ACIDS
    assert sum(drawn) == 2 * (7 + 2 + 12)


def test_starts_have_gibbs_begin_there_and_nowhere_else(model):
    start = "MKTAYIAKQRMKTAYIAKQR"
    how = Sampling(rounds=1, block=0.05)
    assert generate(model, [20], starts=[start]) != generate(model, [20])
    assert generate(model, [20], how, starts=[start]) == generate(model, [20], how, starts=[start])


def test_starts_are_used_by_a_model_that_is_unmasked_without_them():
    model = esm1b(objective="diffusion")
    starts = ["MKTAYIAKQRMKTAYIAKQR"]
    drawn = generate(model, [20], starts=starts)
    assert drawn == generate(model, [20], Sampling("gibbs"), starts=starts)
    assert drawn != generate(model, [20])


@pytest.mark.parametrize(
    ("templates", "named", "sentence"),
    [
        ([5, 0], {}, r"template 2 has no residues; got 0"),
        (["MKT"], {}, "there is no mask to fill"),
        ("MK*", {}, "templates must be a list; got one text"),
        ([39], {}, "template 1 has 39 residues; the position table of this model ends at 38"),
        ([3], {"starts": ["MKX"]}, "start 1 has 'X' at position 3; expected the 20 amino acids"),
        ([3], {"starts": ["MK"]}, "starts must be as many and as long as the templates"),
        ([3], {"starts": [""]}, "start 1 is empty"),
        ([3], {"sampling": Sampling(steps=4)}, "at most the masks of a protein, 3; got 4"),
    ],
)
def test_what_cannot_be_is_one_sentence(model, templates, named, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(model, templates, **named)


def test_nothing_is_generated_for_nothing(model):
    assert generate(model, []) == []


def test_a_model_is_asked_for_by_its_name():
    with pytest.raises(TypeError, match="expected a model, of load_model or ESM1; got a str"):
        generate("esm2_t6_8M_UR50D", [5])
