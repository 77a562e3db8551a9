"""Superposition: the least RMSD, between the residues that two structures have in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdb_files import helix, protein

from mlx_esm_kernels.data.structure import parse_structure
from mlx_esm_kernels.data.superposition import superpose
from mlx_esm_kernels.system.errors import DataError

SEQUENCE = "MKTAYIAKQRGWDE"


def structure(text, name="s"):
    return parse_structure(text, f"{name}.pdb")


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


@given(st.integers(0, 2**32 - 1))
def test_a_moved_structure_is_laid_back(seed):
    rng = np.random.default_rng(seed)
    rotation, shift = random_rotation(rng), rng.normal(scale=20, size=3)
    fixed = structure(protein(SEQUENCE))
    moved = structure(protein(SEQUENCE, positions=helix(14) @ rotation.T + shift))
    found = superpose(fixed, moved)
    assert found.num_pairs == 14
    assert found.rmsd < 2e-3  # PDB has three decimals
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.move(moved.chains[0].ca), fixed.chains[0].ca, atol=5e-3)


def test_the_rmsd_is_the_least_there_is():
    rng = np.random.default_rng(0)
    fixed = structure(protein(SEQUENCE))
    moved = structure(protein(SEQUENCE, positions=helix(14) + rng.normal(size=(14, 3))))
    found = superpose(fixed, moved)
    one, other = fixed.chains[0].ca, moved.chains[0].ca

    def rmsd(x):
        return np.sqrt(((x - one) ** 2).sum(axis=1).mean())

    assert found.rmsd == pytest.approx(rmsd(found.move(other)))
    for _ in range(50):
        turn = random_rotation(rng)
        turned = (other - other.mean(axis=0)) @ turn.T + one.mean(axis=0)
        assert rmsd(turned) >= found.rmsd
    assert found.rmsd > 0.5


def test_residues_that_only_one_of_them_has_are_left_out():
    fixed = structure(protein("GG" + SEQUENCE, positions=helix(16)))
    moved = structure(protein(SEQUENCE + "LL", positions=helix(18)[2:] + 7))
    found = superpose(fixed, moved)
    assert found.num_pairs == 14
    np.testing.assert_allclose(found.shift, -7, atol=0.01)


def test_the_chains_that_are_most_alike_are_laid_on_each_other():
    fixed = structure(protein("WWWWWWW", "A") + protein(SEQUENCE, "B", helix(14) + 30))
    moved = structure(protein(SEQUENCE, "X") + protein("CCCCCCC", "Y", helix(7) + 30))
    assert superpose(fixed, moved).chains == ("B", "X")


@pytest.mark.parametrize("text", [protein("WW"), protein("CCCCC")])
def test_nothing_in_common_is_a_sentence(text):
    with pytest.raises(DataError, match=r"odd cannot be laid over s: no chains .* 3 residues"):
        superpose(structure(protein("WWGGG")), structure(text, "odd"))
