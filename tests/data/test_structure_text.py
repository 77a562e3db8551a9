"""The text for a viewer: every atom, under numbers that tell residues apart."""

import gemmi
import numpy as np
from pdb_files import atom, helix, protein, residue

from mlx_esm_kernels.data.structure import parse_structure
from mlx_esm_kernels.data.structure_text import OTHER, residue_ids, viewer_text
from mlx_esm_kernels.data.superposition import superpose


def rows(text):
    table = gemmi.cif.read_string(text)[0].find(
        "_atom_site.",
        [
            "auth_asym_id",
            "auth_seq_id",
            "auth_atom_id",
            "auth_comp_id",
            "Cartn_x",
            "Cartn_y",
            "Cartn_z",
        ],
    )
    return [[gemmi.cif.as_string(value) for value in row] for row in table]


def test_every_atom_is_there_under_the_number_of_its_residue():
    text = "".join(residue("ALA", "A", 5, (4 * i, 0, 0), insertion=c) for i, c in enumerate(" AB"))
    text += (
        "TER\n"
        + protein("GG", "B", helix(2) + 40)
        + atom("O5'", "HEM", "A", 90, (9, 9, 9), hetero=True)
    )
    structure = parse_structure(text, "f")
    found = rows(viewer_text(structure))
    assert len(found) == 15 + 8 + 1
    assert {(chain, number) for chain, number, *_ in found} == {
        ("0", "1"), ("0", "2"), ("0", "3"), ("1", "1"), ("1", "2"), (OTHER, "1"),
    }  # fmt: skip
    assert [name for chain, _, name, *_ in found if chain == OTHER] == ["O5'"]


def test_a_number_is_left_out_at_a_gap():
    positions = np.array([[0, 0, 0], [3.8, 0, 0], [20, 0, 0], [23.8, 0, 0]])
    chain = parse_structure(protein("MKTA", positions=positions), "f").chains[0]
    assert residue_ids(chain) == [1, 2, 4, 5]


def test_moved_atoms_are_where_the_superposition_moves_them():
    fixed = parse_structure(protein("MKTAY"), "f")
    moved = parse_structure(protein("MKTAY", positions=helix(5) + 9), "m")
    found = rows(viewer_text(moved, superpose(fixed, moved)))
    expected = rows(viewer_text(fixed))
    np.testing.assert_allclose(
        [list(map(float, row[4:])) for row in found],
        [list(map(float, row[4:])) for row in expected],
        atol=0.01,
    )
