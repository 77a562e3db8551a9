"""A structure as the text that a viewer reads: mmCIF with numbers of our own for its residues."""

from __future__ import annotations

from collections.abc import Iterator

import gemmi
import numpy as np
import numpy.typing as npt

from .structure import Chain, Structure
from .superposition import Superposition

# A chain whose next C-alpha is farther away has a gap; 3.8 angstrom is the distance of neighbours.
_NEIGHBOURS = 4.8
_COLUMNS = (
    "group_PDB",
    "id",
    "type_symbol",
    "auth_atom_id",
    "auth_comp_id",
    "auth_asym_id",
    "auth_seq_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "B_iso_or_equiv",
)
OTHER = "x"  # the chain of all that is in no polymer


def residue_ids(chain: Chain) -> list[int]:
    """A number for each residue, from 1, ascending; one is left out where the chain has a gap.

    So no two residues share one, as with insertion codes, and a viewer draws no bridge over a gap.
    """
    gaps = np.diff(chain.places) > 1
    distances = np.linalg.norm(np.diff(chain.ca, axis=0), axis=-1)
    gaps |= np.nan_to_num(distances) > _NEIGHBOURS
    return [1, *(np.cumsum(1 + gaps) + 1).tolist()]


def viewer_text(structure: Structure, move: Superposition | None = None) -> str:
    """mmCIF of the atoms, in which chain number c of `structure.chains` is called c.

    Args:
        structure: of `load_structure`.
        move: where its atoms are moved to.
    """
    lines = ["data_structure", "loop_", *(f"_atom_site.{column}" for column in _COLUMNS)]
    for serial, (chain, number, residue, atom) in enumerate(_atoms(structure), start=1):
        position: npt.NDArray[np.float64] = np.array(atom.pos.tolist())
        x, y, z = (position if move is None else move.move(position)).tolist()
        # Quoted, as an apostrophe (C1', say) would begin a text.
        lines.append(
            f"{'HETATM' if chain == OTHER else 'ATOM'} {serial} {atom.element.name} "
            f'"{atom.name}" {residue.name or "UNK"} {chain} {number} '
            f"{x:.3f} {y:.3f} {z:.3f} {atom.b_iso:.2f}"
        )
    return "\n".join(lines) + "\n"


def _atoms(structure: Structure) -> Iterator[tuple[str, int, gemmi.Residue, gemmi.Atom]]:
    number_of_chain = 0
    other = 0
    for chain in structure.model:
        polymer = chain.get_polymer()
        if len(polymer):
            ids = residue_ids(structure.chains[number_of_chain])
            for number, residue in zip(ids, polymer.first_conformer(), strict=True):
                yield from ((str(number_of_chain), number, residue, atom) for atom in residue)
            number_of_chain += 1
        polymer_ids = {str(residue.seqid) + residue.name for residue in polymer}
        for residue in chain:
            if str(residue.seqid) + residue.name not in polymer_ids:
                other += 1
                yield from ((OTHER, other, residue, atom) for atom in residue)
