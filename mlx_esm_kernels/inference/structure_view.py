"""Looking at structures: what a page shows of them, and a model's contacts laid over theirs."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.structure import Chain, Structure, load_structure, parse_structure
from ..data.structure_text import residue_ids, viewer_text
from ..data.superposition import Superposition, superpose
from ..data.unpacking import STRUCTURE_SUFFIXES
from ..models.contact_head import require_contact_head
from ..models.esm1 import ESM1
from ..pictures.structure_page import structure_page
from ..system.console import progress
from ..system.errors import DataError
from ..system.whole_file import whole_file
from .contact_precision import LONG_RANGE, contacts_of, long_range_precision, surest_pairs
from .contacts import contact_map
from .requirements import Long

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_Map = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class StructureView:
    """A page of structures. In a notebook it shows itself.

    Attributes:
        page: its HTML, whole. lines: what is to be said of it, a line a structure.
    """

    page: str = field(repr=False)
    lines: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with whole_file(Path(path)) as half_done:
            half_done.write_text(self.page, encoding="utf-8")

    def _repr_html_(self) -> str:
        # A frame, as the page has styles and names of its own. It has thousands of double quotes,
        # and few single ones, so these are around it: less is stored in the notebook.
        page = html.escape(self.page, quote=False).replace("'", "&#39;")
        return (
            '<iframe title="Structures" style="width: 100%; height: 720px; border: 0" '
            f"srcdoc='{page}'></iframe>"
        )


def view(
    *structures: str | os.PathLike[str],
    contacts: str | os.PathLike[str] | npt.ArrayLike | None = None,
    model: ESM1 | None = None,
    chain: str | None = None,
    model_number: int = 1,
    has_confidence: bool | None = None,
) -> StructureView:
    """A page of structures, side by side or laid over the first of them.

    Args:
        structures: paths of PDB and mmCIF files, plain or compressed; of folders with such files;
            or the text of one.
        contacts: an .npz of the command `contacts`, whose maps are laid over the structures'
            contacts: on each structure the first map that is as large as a chain of it; or one
            map, (L, L) from 0 to 1, as of `predict_contacts` or `coupling_map`.
        model: a model with a contact regression, which predicts them instead.
        chain: the name of the chain that the contacts are of; None: the first protein.
        model_number: which model of a file with several, from 1.
        has_confidence: see `load_structure`.

    Raises:
        DataError: something is no structure, or no map is of a chain's size.
        UserError: both `contacts` and `model` are given, or the model predicts no contacts.
    """
    if contacts is not None and model is not None:
        raise DataError("[view] give contacts or a model, not both.")
    if model is not None:
        require_contact_head(model.config)
    options: dict[str, Any] = {"model": model_number, "has_confidence": has_confidence}
    read = [
        parse_structure(given, "the text", **options)
        if isinstance(given, str) and "\n" in given
        else load_structure(given, **options)
        for given in progress(_files(structures), desc="📥 loading", unit="structure")
    ]
    maps = [] if contacts is None else _maps(contacts)
    shown, lines = [], []
    for structure in read:
        move, said = _superposition(read[0], structure)
        shown.append(_shown(structure, move, said))
        if maps or model is not None:
            overlaid = _overlaid(structure, maps, model, chain, move)
            said.append(f"{overlaid['label']}: {overlaid['precision']}")
            shown[-1]["contacts"] = overlaid
        lines.append("; ".join([f"{structure.name}: {_size(structure)}", *said]))
    title = read[0].name if len(read) == 1 else f"{len(read)} structures"
    return StructureView(structure_page(title, shown), tuple(lines))


def _maps(contacts: str | os.PathLike[str] | npt.ArrayLike) -> list[_Map]:
    """Those of a file, or the one that is given."""
    if isinstance(contacts, (str, os.PathLike)):
        return load_contact_maps(contacts)
    one: _Map = np.asarray(contacts)
    is_square = one.ndim == 2 and one.shape[0] == one.shape[1]
    if not is_square or not ((one >= 0) & (one <= 1)).all():
        raise DataError(
            "[view] contacts must be a path, or a map (L, L) of numbers from 0 to 1; got an array "
            f"of {one.shape}."
        )
    return [one]


def load_contact_maps(path: str | os.PathLike[str]) -> list[_Map]:
    """The maps of an .npz of the command `contacts`.

    Raises:
        DataError: it is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = [key for key in arrays.files if key.startswith("contacts_")]
            keys.sort(key=lambda key: int(key.removeprefix("contacts_")))
            found = [arrays[key] for key in keys]
    except FileNotFoundError:
        raise DataError(f"{os.fspath(path)} does not exist.") from None
    except Exception:  # a damaged zip can raise anything
        found = []
    if not found or any(one.ndim != 2 or one.shape[0] != one.shape[1] for one in found):
        raise DataError(
            f"{os.fspath(path)} is not an .npz of contact maps, as the command contacts writes it."
        )
    return found


def _files(given: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Folders as the structures in them."""
    found: list[str | os.PathLike[str]] = []
    for one in given:
        if (isinstance(one, str) and "\n" in one) or not Path(one).is_dir():
            found.append(one)
            continue
        inside = [path for path in sorted(Path(one).iterdir()) if _is_structure(path)]
        if not inside:
            raise DataError(
                f"{os.fspath(one)} has no structures in it ({', '.join(STRUCTURE_SUFFIXES)})."
            )
        found += inside
    if not found:
        raise DataError("[view] expected at least one structure.")
    return found


def _is_structure(path: Path) -> bool:
    name = path.name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return name.endswith(STRUCTURE_SUFFIXES) and not name.startswith(".") and path.is_file()


def _superposition(
    first: Structure, structure: Structure
) -> tuple[Superposition | None, list[str]]:
    """How a structure is laid over the first, and what is to be said of that."""
    if structure is first:
        return None, []
    try:
        move = superpose(first, structure)
    except DataError as error:
        return None, [str(error)]
    return move, [f"{move.num_pairs:,} C-alphas on {first.name}, RMSD {move.rmsd:.2f} Å"]


def _size(structure: Structure) -> str:
    chains = "1 chain" if len(structure.chains) == 1 else f"{len(structure.chains)} chains"
    residues = sum(map(len, structure.chains))
    if not structure.chains:
        return "no chains of residues"
    count = f"{chains}, {residues:,} residues"
    if structure.num_models > 1:
        count += f", 1 of {structure.num_models} models"
    return count


def _shown(structure: Structure, move: Superposition | None, said: list[str]) -> dict[str, Any]:
    notes = [_size(structure).capitalize() + "."]
    if structure.confidence is not None:
        scale = ", stored from 0 to 1" if structure.confidence == 100 else ""
        notes.append(f"A prediction: its B-factors are confidence (pLDDT{scale}).")
    notes += [f"{line.rstrip('.')}." for line in said]
    return {
        "name": structure.name,
        "caption": "; ".join([structure.name, *said]),
        "notes": notes,
        "atoms": viewer_text(structure, move),
        "chains": [_shown_chain(structure, chain) for chain in structure.chains],
    }


def _shown_chain(structure: Structure, chain: Chain) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": chain.name,
        "is_protein": chain.is_protein,
        "sequence": chain.sequence,
        "names": chain.names,
        "numbers": chain.numbers,
        "ids": residue_ids(chain),
        "drawn": chain.drawn,
    }
    if structure.confidence is not None and chain.is_protein:
        shown["confidence"] = (chain.b_factors * structure.confidence).round(1).tolist()
    return shown


def _overlaid(
    structure: Structure,
    maps: Sequence[_Map],
    model: ESM1 | None,
    name: str | None,
    move: Superposition | None,
) -> dict[str, Any]:
    """What the page shows of a contact map over a structure."""
    chains = [chain for chain in structure.proteins if name is None or chain.name == name]
    if not chains:
        what = "protein" if name is None else f"protein chain {name}"
        raise DataError(f"{structure.name} has no {what}, so there are no contacts to compare.")
    chain, predicted = chains[0], None
    if model is not None:
        letters = chain.whole or chain.sequence
        ids = model.alphabet.encode(letters)
        long: Long = "window" if model.config.has_position_table else "error"
        predicted = _fitting(np.array(contact_map(model, ids, long)), chain)
    else:
        for chain in chains:
            fitting = (_fitting(one, chain) for one in maps)
            predicted = next((one for one in fitting if one is not None), None)
            if predicted is not None:
                break
    if predicted is None:
        sizes = ", ".join(f"{len(one):,}" for one in maps[:5])
        raise DataError(
            f"No contact map is of the size of a chain of {structure.name} "
            f"({', '.join(f'{c.name}: {len(c):,} residues' for c in chains[:5])}); the maps have "
            f"{sizes}."
        )
    truth = contacts_of(chain.cb)
    first, second = surest_pairs(predicted, truth, chain.places)
    at = {s: long_range_precision(predicted, truth, chain.places, share=s) for s in (1, 5)}
    precision = f"no residues are {LONG_RANGE} apart, so there is no long-range precision"
    if at[1] is not None:
        precision = f"long-range precision {at[1]:.2f} at L, {at[5]:.2f} at L/5"
    return {
        "truth": ["".join("?" if np.isnan(x) else str(int(x)) for x in row) for row in truth],
        "predicted": (100 * predicted).round().astype(int).tolist(),
        "cb": _positions(chain, move),
        "surest": [
            (int(i), int(j), bool(truth[i, j]))
            for i, j in zip(first[: len(chain)], second[: len(chain)], strict=True)
        ],
        "label": f"chain {chain.name}",
        "precision": precision,
    }


def _fitting(predicted: _Map, chain: Chain) -> _Map | None:
    """A map cut to the residues that have coordinates; None where it is of another size."""
    if len(predicted) == len(chain):
        return predicted
    if chain.whole is not None and len(predicted) == len(chain.whole):
        cut: _Map = predicted[np.ix_(chain.places, chain.places)]
        return cut
    return None


def _positions(chain: Chain, move: Superposition | None) -> list[list[float]]:
    positions = chain.cb if move is None else move.move(chain.cb)
    return [[0.0 if np.isnan(x) else round(float(x), 3) for x in row] for row in positions]
