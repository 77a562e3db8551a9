"""Structures of proteins, from files of PDB and mmCIF.

They are read by gemmi, CCP4's library for both formats and for all that is odd in them.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt

from ..system.errors import DataError
from .sources import open_source
from .unpacking import STRUCTURE, unpacked

_Floats = npt.NDArray[np.float64]
_AMINO_ACIDS = (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD)
# Programs that put their confidence (pLDDT) where an experiment has B-factors.
_PREDICTORS = re.compile(
    r"alphafold|colabfold|esmfold|esm-?fold|rosettafold|omegafold|boltz|chai-1|openfold|pLDDT",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain's polymer: L residues of which there are coordinates.

    Attributes:
        name: as the author called it.
        is_protein: or else it is of nucleotides, or of something rarer.
        names: L names, such as MET. numbers: L numbers with insertion codes, such as 52A.
        sequence: L letters, X where a residue has none; a modified one has its parent's (M for
            selenomethionine).
        whole: the sequence of the molecule, residues without coordinates included, if the file
            tells it. places: (L,) int64, where in `whole`; 0, 1, ... without it.
        ca, cb: (L, 3) float64, C-alpha, and C-beta (of glycine its C-alpha), in angstrom; NaN where
            there is none.
        b_factors: (L,) float64, of the C-alpha, or of the first atom where there is none.
        drawn: how it can be drawn: as "cartoon"; as "trace", where a protein has C-alphas and no
            more; as "sticks", where it has not even these.
    """

    name: str
    is_protein: bool
    names: tuple[str, ...] = field(repr=False)
    numbers: tuple[str, ...] = field(repr=False)
    sequence: str
    whole: str | None
    places: npt.NDArray[np.int64] = field(repr=False)
    ca: _Floats = field(repr=False)
    cb: _Floats = field(repr=False)
    b_factors: _Floats = field(repr=False)
    drawn: str

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, eq=False)
class Structure:
    """One model of a file.

    Attributes:
        name: the file's, without its suffixes.
        chains: those that have a polymer, in the order of the file.
        num_models: how many the file has.
        confidence: by what number of `b_factors` is the confidence from 0 to 100 (pLDDT) of a
            prediction: 1, or 100 where they are from 0 to 1; None: they are not.
        model: the atoms, for what shows them; one conformation of each, without water.
    """

    name: str
    chains: tuple[Chain, ...]
    num_models: int
    confidence: float | None
    model: gemmi.Model = field(repr=False)

    @property
    def proteins(self) -> tuple[Chain, ...]:
        """The chains of amino acids."""
        return tuple(chain for chain in self.chains if chain.is_protein)


def load_structure(
    path: str | os.PathLike[str], *, model: int = 1, has_confidence: bool | None = None
) -> Structure:
    """Read a file of PDB or mmCIF, plain or compressed.

    Of alternative conformations the first is taken, and water is left out.

    Args:
        path: the file; what is in it tells its format, never its name.
        model: which of the models (of an NMR structure, say), from 1.
        has_confidence: whether the B-factors are a prediction's confidence; None: as the file
            says (see `Structure.confidence`).

    Raises:
        DataError: it is something else, damaged or empty, or has no such model.
    """
    name = os.fspath(path)
    with open_source(path) as file, unpacked(file, name, expected=STRUCTURE) as stream:
        content = stream.read()
    return parse_structure(content, name, model=model, has_confidence=has_confidence)


def parse_structure(
    content: bytes | str, name: str, *, model: int = 1, has_confidence: bool | None = None
) -> Structure:
    """As `load_structure`, from what is in a file; messages call it `name`."""
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    parsed = _parsed(text, name)
    if not 1 <= model <= len(parsed):
        count = "1 model" if len(parsed) == 1 else f"{len(parsed)} models"
        raise DataError(f"{name} has {count}; there is no model {model}.")
    parsed.remove_alternative_conformations()
    parsed.setup_entities()
    parsed.remove_waters()
    chosen = parsed[model - 1]
    chains = tuple(_chains(parsed, chosen))
    scale = _confidence(parsed, text, chains) if has_confidence is not False else None
    if has_confidence and scale is None:
        scale = _scale(chains)
    stem = re.sub(r"(\.(pdb|ent|cif|mmcif|gz|bz2|xz|zst|zip))+$", "", Path(name).name, flags=re.I)
    return Structure(stem, chains, len(parsed), scale, chosen)


def _parsed(text: str, name: str) -> gemmi.Structure:
    is_cif = re.match(r"(\s*(#.*)?\n)*\s*data_", text, re.IGNORECASE) is not None
    try:
        if is_cif:
            parsed = gemmi.make_structure_from_block(gemmi.cif.read_string(text)[0])
        else:
            parsed = gemmi.read_pdb_string(text)
    except (ValueError, RuntimeError, IndexError) as error:
        kind = "mmCIF" if is_cif else "PDB"
        why = textwrap.shorten(str(error), 120)
        raise DataError(f"{name} is damaged: as {kind} it cannot be read ({why}).") from None
    atoms = sum(m.count_atom_sites() for m in parsed)
    if not atoms:
        what = "is empty" if not text.strip() else "has no atoms"
        raise DataError(f"{name} {what}; expected {STRUCTURE}.")
    if not all(math.isfinite(x) for m in parsed for x in m.calculate_center_of_mass().tolist()):
        raise DataError(f"{name} is damaged: coordinates of atoms in it are no numbers.")
    return parsed


def _chains(parsed: gemmi.Structure, model: gemmi.Model) -> Iterator[Chain]:
    for chain in model:
        polymer = chain.get_polymer()
        if not len(polymer):
            continue
        kind = polymer.check_polymer_type()
        entity = parsed.get_entity_of(polymer)
        whole = None if entity is None or not entity.full_sequence else _whole(entity)
        residues = list(polymer.first_conformer())
        places = np.arange(len(residues))
        if whole is not None:
            labels = [residue.label_seq for residue in residues]
            if any(label is None for label in labels):
                polymer_places = _placed("".join(map(_letter, residues)), whole)
                whole = whole if polymer_places is not None else None
                places = places if polymer_places is None else polymer_places
            else:
                places = np.array(labels) - 1
        yield Chain(
            name=chain.name,
            is_protein=kind in _AMINO_ACIDS,
            names=tuple(residue.name for residue in residues),
            numbers=tuple(str(residue.seqid) for residue in residues),
            sequence="".join(map(_letter, residues)),
            whole=whole,
            places=places.astype(np.int64),
            ca=np.array([_position(residue, "CA") for residue in residues]),
            cb=np.array([_position(residue, "CB", "CA") for residue in residues]),
            b_factors=np.array([_b_factor(residue) for residue in residues]),
            drawn=_drawn(residues, kind in _AMINO_ACIDS),
        )


def _whole(entity: gemmi.Entity) -> str:
    # Where a position has several residues (microheterogeneity), the first.
    names = [gemmi.Entity.first_mon(item) for item in entity.full_sequence]
    return "".join(_letter_of(name) for name in names)


def _placed(sequence: str, whole: str) -> npt.NDArray[np.int64] | None:
    """Where the residues of a sequence are in the whole one; None where they are not all there."""
    places, start = [], 0
    for letter in sequence:
        start = whole.find(letter, start) + 1
        if not start:
            return None
        places.append(start - 1)
    return np.array(places, np.int64)


def _letter(residue: gemmi.Residue) -> str:
    return _letter_of(residue.name)


def _letter_of(name: str) -> str:
    info = gemmi.find_tabulated_residue(name)
    letter = info.one_letter_code.strip().upper() if info.found() else ""
    return letter or "X"


def _position(residue: gemmi.Residue, name: str, of_glycine: str | None = None) -> list[float]:
    if of_glycine is not None and residue.name == "GLY":
        name = of_glycine
    atom = residue.find_atom(name, "*", gemmi.Element("C"))
    return [math.nan] * 3 if atom is None else atom.pos.tolist()


def _b_factor(residue: gemmi.Residue) -> float:
    atom = residue.find_atom("CA", "*", gemmi.Element("C"))
    return float((atom or residue[0]).b_iso)


def _drawn(residues: list[gemmi.Residue], is_protein: bool) -> str:
    names = [{atom.name for atom in residue} for residue in residues]
    if not is_protein:
        return "cartoon" if any("P" in some for some in names) else "sticks"
    whole = sum({"CA", "O"} <= some for some in names)
    if 2 * whole >= len(names):
        return "cartoon"
    return "trace" if 2 * sum("CA" in some for some in names) >= len(names) else "sticks"


def _confidence(parsed: gemmi.Structure, text: str, chains: tuple[Chain, ...]) -> float | None:
    """The factor of `Structure.confidence`, where the file says that it is a prediction."""
    scale = _scale(chains)
    if scale is None:
        return None
    head = text[:20_000]
    info = dict(parsed.info)
    method = info.get("_exptl.method", "").upper()
    if method and "THEORETICAL" not in method:
        return None
    is_named = bool(_PREDICTORS.search(head)) or "_ma_qa_metric" in text
    # ESMFold names itself nowhere; what its writer begins with no experiment has.
    return scale if is_named or head.startswith("PARENT N/A") else None


def _scale(chains: tuple[Chain, ...]) -> float | None:
    values = np.concatenate([chain.b_factors for chain in chains] or [np.zeros(0)])
    if not values.size or values.min() < 0 or values.max() > 100 or not values.any():
        return None
    return 100.0 if values.max() <= 1 else 1.0
