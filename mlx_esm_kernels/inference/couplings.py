"""Which positions of a protein a model takes to vary together.

A model without a contact regression has no probabilities of contacts. What any model has is the
categorical Jacobian (Zhang et al. 2024, "Protein language models learn evolutionary statistics of
interacting sequence motifs"): how the logits at position j move when residue i is put in the place
of each of the 20. With J_ij its 20 x 20 block, centred along both axes,

    S_ij = |J_ij| + |J_ji|        coupling_ij ~ S_ij - S_i S_j / S

where |.| is the Frobenius norm and the last step the average product correction. It needs no
training, and sees what the whole model does, whichever head or layer does it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data.residues import require_residues
from ..models.esm1 import ESM1, require_language_head
from .likelihood import logits_at
from .requirements import require_room, warn_long

_Floats = npt.NDArray[np.float64]
_Ids = npt.NDArray[np.uint8]


def coupling_map(model: ESM1, sequence: str) -> _Floats:
    """How strongly each two positions of a protein go together, by the categorical Jacobian.

    What varies together often touches; but a coupling is no probability of that, and only those of
    one protein can be compared with each other.

    Args:
        model: of `load_model`, with a language head.
        sequence: one letter per residue. Each takes 20 forward passes.

    Returns:
        (L, L) float64, symmetric: 1 for the strongest, 0 on the diagonal and where two positions
        have less in common than each has with all.

    Raises:
        ValueError: the sequence is empty, too long or holds what is no residue; the model has no
            language head, or gives NaN.
    """
    require_language_head(model.config)
    sequence = require_residues(sequence, model.alphabet)
    require_room(model, len(sequence), "the sequence", "give a part of it")
    warn_long(model, np.array([len(sequence)]), "")
    found = corrected(couplings(model, model.alphabet.encode(sequence))).clip(min=0)
    scaled: _Floats = found / max(float(found.max()), np.finfo(np.float64).tiny)
    return scaled


def couplings(model: ESM1, ids: _Ids) -> _Floats:
    """(L, L) float64, symmetric: |J_ij| + |J_ji| of the categorical Jacobian of one protein.

    Args:
        model: with a language head.
        ids: (L,) residue ids, without cls and eos.
    """
    alphabet = model.alphabet
    residues = alphabet.amino_acid_ids
    length, first = len(ids), int(alphabet.prepend_cls)
    columns = np.arange(length)
    norms = np.empty((length, length))
    for place in range(length):
        tokens = np.repeat(alphabet.with_specials(ids)[None], len(residues), axis=0)
        tokens[:, first + place] = residues
        rows = np.repeat(np.arange(len(residues)), length)
        logits = logits_at(model, tokens, rows, np.tile(columns + first, len(residues)))
        block = logits[:, residues].reshape(len(residues), length, len(residues))
        block = block - block.mean(axis=0)  # over what stands at `place`
        block = block - block.mean(axis=2, keepdims=True)  # a logit is known up to a constant
        norms[place] = np.sqrt((block**2).sum(axis=(0, 2)))
    np.fill_diagonal(norms, 0)
    symmetric: _Floats = norms + norms.T
    return symmetric


def corrected(sums: _Floats) -> _Floats:
    """(L, L) less the average product: what two positions have beyond what each has with all."""
    rows = sums.sum(axis=0)
    total = rows.sum()
    result: _Floats = sums - np.outer(rows, rows) / total if total else sums
    return result
