"""Structures: what is in files of PDB and mmCIF, and sentences about what is not."""

import gzip
import zipfile

import gemmi
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pdb_files import atom, helix, protein, residue

from mlx_esm_kernels.data.structure import load_structure, parse_structure
from mlx_esm_kernels.system.errors import DataError

SEQUENCE = "MKTAYIAKQRGW"


def parse(text, **options):
    return parse_structure(text, "file.pdb", **options)


def as_mmcif(text, sequence=None):
    structure = gemmi.read_pdb_string(text)
    structure.setup_entities()
    if sequence:
        structure.entities[0].full_sequence = [
            gemmi.expand_one_letter(c, gemmi.ResidueKind.AA) for c in sequence
        ]
        structure.assign_label_seq_id()
    return structure.make_mmcif_document().as_string()


@pytest.mark.parametrize("convert", [str, as_mmcif], ids=["PDB", "mmCIF"])
@pytest.mark.parametrize("compress", [str.encode, lambda t: gzip.compress(t.encode(), mtime=0)])
def test_the_sequence_is_that_of_the_atoms(tmp_path, convert, compress):
    path = tmp_path / "two.chains.pdb.gz"
    text = protein(SEQUENCE) + protein("GGW", "B", helix(3) + 30)
    path.write_bytes(compress(convert(text)))
    structure = load_structure(path)
    assert structure.name == "two.chains"
    assert [(c.name, c.sequence, c.is_protein) for c in structure.chains] == [
        ("A", SEQUENCE, True),
        ("B", "GGW", True),
    ]
    chain = structure.chains[0]
    assert chain.names[:2] == ("MET", "LYS")
    assert chain.numbers == tuple(map(str, range(1, 13)))
    np.testing.assert_allclose(chain.ca, helix(12), atol=1e-3)
    np.testing.assert_allclose(chain.cb[0], helix(12)[0] + (0, -0.8, 1.3), atol=1e-3)
    np.testing.assert_allclose(chain.cb[10], chain.ca[10])  # glycine


def test_a_zip_has_its_structure_or_a_sentence_where_it_has_several(tmp_path):
    path = tmp_path / "folded.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.cif", as_mmcif(protein(SEQUENCE)))
        archive.writestr("terms_of_use.md", "terms")
    assert load_structure(path).chains[0].sequence == SEQUENCE
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model_1.cif", as_mmcif(protein(SEQUENCE)))
    with pytest.raises(DataError, match=r"zip archive of 2 structures; unpack it and give the fol"):
        load_structure(path)


def test_insertion_codes_are_residues_of_their_own():
    text = "".join(
        residue("ALA", "A", 52, (i * 3.8, 0, 0), insertion=code) for i, code in enumerate(" AB")
    )
    chain = parse(text + residue("TRP", "A", 53, (11.4, 0, 0))).chains[0]
    assert (chain.sequence, chain.numbers) == ("AAAW", ("52", "52A", "52B", "53"))


def test_of_alternative_conformations_the_first_counts():
    text = residue("ALA", "A", 1, (0, 0, 0), alt="A") + residue("ALA", "A", 1, (9, 0, 0), alt="B")
    mixed = residue("SER", "A", 2, (3.8, 0, 0), alt="A") + residue(
        "THR", "A", 2, (4, 0, 0), alt="B"
    )
    chain = parse(text + mixed + residue("TRP", "A", 3, (7.6, 0, 0))).chains[0]
    assert chain.sequence == "ASW"
    np.testing.assert_allclose(chain.ca[0], 0)


def test_modified_residues_have_the_letters_of_their_parents():
    text = residue("MSE", "A", 1, (0, 0, 0), hetero=True) + residue("SEP", "A", 2, (3.8, 0, 0))
    text += residue("QQQ", "A", 3, (7.6, 0, 0)) + residue("TRP", "A", 4, (11.4, 0, 0)) + "TER\n"
    chain = parse(text).chains[0]
    assert (chain.sequence, chain.is_protein) == ("MSXW", True)


def test_water_and_ligands_are_no_residues():
    text = protein("MKT") + atom("C1", "HEM", "A", 200, (9, 9, 9), hetero=True)
    text += atom("CA", "CA", "A", 201, (9, 9, 0), hetero=True)
    text += atom("O", "HOH", "A", 301, (5, 5, 5), hetero=True)
    structure = parse(text)
    assert [chain.sequence for chain in structure.chains] == ["MKT"]
    left = [residue.name for chain in structure.model for residue in chain]
    assert left == ["MET", "LYS", "THR", "HEM", "CA"]


def test_nucleic_acids_are_chains_but_no_proteins():
    text = "".join(
        atom(name, "DA", "N", number, (number * 5, i, 0))
        for number in (1, 2, 3)
        for i, name in enumerate(("P", "C1'", "C3'", "O3'", "N9"))
    )
    structure = parse(text + "TER\n")
    assert [(c.sequence, c.is_protein) for c in structure.chains] == [("AAA", False)]
    assert structure.proteins == ()
    assert np.isnan(structure.chains[0].ca).all()


def test_residues_without_c_alphas_have_no_position():
    text = atom("CA", "ALA", "A", 1, (0, 0, 0)) + atom("N", "GLY", "A", 2, (3.8, 0, 0))
    chain = parse(text + atom("CA", "TRP", "A", 3, (7.6, 0, 0)) + "TER\n").chains[0]
    assert chain.sequence == "AGW"
    assert np.isnan(chain.ca).any(axis=1).tolist() == [False, True, False]
    assert np.isnan(chain.cb).all()


def test_each_of_several_models_can_be_had():
    models = [protein("MKT", positions=helix(3) + i) for i in range(3)]
    text = "".join(f"MODEL {i:8}\n{m}ENDMDL\n" for i, m in enumerate(models, start=1))
    assert parse(text).num_models == 3
    for i in range(3):
        np.testing.assert_allclose(parse(text, model=i + 1).chains[0].ca, helix(3) + i, atol=1e-3)
    with pytest.raises(DataError, match=r"file.pdb has 3 models; there is no model 4\."):
        parse(text, model=4)
    with pytest.raises(DataError, match="has 1 model; there is no model 0"):
        parse(models[0], model=0)


def test_places_are_those_in_the_whole_sequence_where_the_file_tells_it():
    seqres = "SEQRES   1 A    6  GLY MET LYS THR ALA TRP\n"
    text = seqres + residue("MET", "A", 7, (0, 0, 0)) + residue("LYS", "A", 8, (3.8, 0, 0))
    text += residue("TRP", "A", 11, (15, 0, 0)) + "TER\n"
    for content in (text, as_mmcif(text, "GMKTAW")):
        chain = parse(content).chains[0]
        assert (chain.sequence, chain.whole) == ("MKW", "GMKTAW")
        assert chain.places.tolist() == [1, 2, 5]
    chain = parse(text.removeprefix(seqres)).chains[0]
    assert (chain.whole, chain.places.tolist()) == (None, [0, 1, 2])


PREDICTED = protein("MKT", b=87.5)
CRYSTAL = "EXPDTA    X-RAY DIFFRACTION\n"


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("TITLE     ALPHAFOLD MONOMER V2.0 PREDICTION\n" + PREDICTED, 1),
        ("PARENT N/A\n" + PREDICTED, 1),
        ("PARENT N/A\n" + protein("MKT", b=0.875), 100),
        ("REMARK   1 COLABFOLD\n" + PREDICTED, 1),
        (PREDICTED, None),  # nobody says so: it may be a crystal without its header
        (CRYSTAL + PREDICTED, None),
        (CRYSTAL + "REMARK   1 SOLVED WITH AN ALPHAFOLD MODEL\n" + PREDICTED, None),
        ("PARENT N/A\n" + protein("MKT", b=0), None),
        ("PARENT N/A\n" + protein("MKT", b=120), None),
    ],
)
def test_confidence_is_recognised_where_the_file_says_that_it_is_a_prediction(text, confidence):
    assert parse(text).confidence == confidence
    assert parse(text, has_confidence=False).confidence is None


def test_a_person_can_insist_that_b_factors_are_confidence():
    assert parse(CRYSTAL + PREDICTED, has_confidence=True).confidence == 1
    assert parse(protein("MKT", b=0.5), has_confidence=True).confidence == 100


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "file.pdb is empty; expected a structure"),
        ("just some text\nand more\n", "file.pdb has no atoms; expected a structure"),
        (">p\nMKTAYI\n", "file.pdb has no atoms"),
        (
            "data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1\n",
            "file.pdb is damaged: as mmCIF it cannot be read",
        ),
        ("data_x\n_cell.length_a 10\n", "file.pdb has no atoms"),
        (protein("MKT")[:50].replace("-1.", "xyz"), "file.pdb"),
        (atom("CA", "ALA", "A", 1, (float("nan"), 0, 0)), "coordinates of atoms in it are no numb"),
    ],
)
def test_what_is_no_structure_has_one_sentence(content, sentence):
    with pytest.raises(DataError) as caught:
        parse(content)
    assert sentence in str(caught.value)


@given(st.binary(max_size=400))
@example(protein("MK").encode()[:-30])
@example(b"data_\n_atom_site.Cartn_x 1\n")
@example(b"data_a\nloop_\n_atom_site.group_PDB\n_atom_site.id\nATOM 1\n")
def test_any_bytes_end_in_a_structure_or_one_sentence(content):
    for start in (b"", b"data_x\n", protein("MKT").encode()):
        try:
            structure = parse(start + content)
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(len(c.sequence) == len(c.ca) == len(c.places) for c in structure.chains)


@pytest.mark.slow
def test_a_hundred_thousand_atoms_are_read():
    text = "".join(
        protein("ACDEFGHIKL" * 100, name, helix(1000) + 50 * i)
        for i, name in enumerate("ABCDEFGHIJKLMNOPQRST")
    )
    assert text.count("\nATOM") > 95_000
    assert [len(chain) for chain in parse(text).chains] == [1000] * 20
